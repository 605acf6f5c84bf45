//! Roles that may little, and settings and names that others made.

use foldline_api::ErrorClass;
use foldline_api::model::Model;
use foldline_api::rebuild::{By, Step, Stepped};
use foldline_api::record::Position;
use foldline_api::sink::{Target, Version};
use foldline_sink_postgres::PostgresTarget;

use crate::support::{Fixture, Held, claim, orders, part, put, row};

/// A role that may nothing in the database, and owns what an administrator made for it: both schemas.
struct Role {
    name: String,
    fixture: Fixture,
}

impl Role {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let name = format!("{}_role", fixture.schema);
        fixture
            .run(&format!(
                "CREATE ROLE {name} LOGIN PASSWORD 'p'; CREATE SCHEMA {{s}} AUTHORIZATION {name}; CREATE SCHEMA \
                 {{s}}_books AUTHORIZATION {name}"
            ))
            .await;
        Role { name, fixture }
    }

    async fn set(&self, setting: &str) {
        let name = &self.name;
        self.fixture.run(&format!("ALTER ROLE {name} SET {setting}")).await;
    }

    fn target(&self, model: Model) -> PostgresTarget {
        let mut config = self.fixture.config();
        let (_, host) = config.url.rsplit_once('@').unwrap();
        config.url = format!("postgres://{}:p@{host}", self.name);
        PostgresTarget::new(config, self.fixture.spec(model)).unwrap()
    }

    async fn end(self) {
        let name = &self.name;
        self.fixture.run(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}")).await;
    }
}

/// Opens, writes, builds beside and swaps: all that a connector does to a table.
async fn whole_life(target: &dyn Target, model: Model) {
    let generation = target.open().await.unwrap().generation;
    let mut live = Held::new(target, generation, model.clone()).await;
    live.durable(vec![put(row(1, 2, "a"), Version::Absent)]).await;
    let goals = [(part(0), live.lease.position)];
    let next = target.rebuilds().begin(By::Operator, &[claim(0)], &goals).await.unwrap();
    let mut build = Held::new(target, next, model).await;
    build.durable(vec![put(row(1, 2, "a"), Version::Absent)]).await;
    assert_eq!(build.lease.position, Position(1));
    for step in [Step::Follow, Step::Hold { patient: false }, Step::Swap] {
        let stepped = target.rebuilds().step(next, step).await.unwrap();
        assert!(matches!(stepped, Stepped::Done(_)), "{step:?}: {stepped:?}");
    }
    assert_eq!(target.open().await.unwrap().generation, next);
    assert_eq!(target.differences().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_schema_that_an_administrator_made_is_enough() {
    let role = Role::new().await;
    whole_life(&role.target(orders()), orders()).await;
    role.end().await;
}

#[tokio::test]
async fn a_missing_privilege_is_told_with_its_grant_and_given_while_it_is_asked_for() {
    let role = Role::new().await;
    role.fixture.run("ALTER SCHEMA {s} OWNER TO CURRENT_USER").await;
    let target = role.target(orders());
    let denied = target.open().await.unwrap_err();
    assert_eq!((denied.class(), denied.code()), (ErrorClass::Retriable, Some("42501")));
    let schema = &role.fixture.schema;
    let grant = format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO");
    assert!(denied.message().contains(&grant), "{denied}");
    role.fixture.run(&format!("{grant} {}", role.name)).await;
    assert_eq!(target.open().await.unwrap().generation, 1);
    role.end().await;
}

#[tokio::test]
async fn settings_that_people_put_on_a_role_change_nothing() {
    for setting in [
        "quote_all_identifiers = on",
        "search_path = pg_catalog, public",
        "default_transaction_isolation = 'serializable'",
        "standard_conforming_strings = off",
        "datestyle = 'SQL, DMY'",
    ] {
        let role = Role::new().await;
        role.set(setting).await;
        let mut model = orders();
        model.columns[1].index = true;
        whole_life(&role.target(model.clone()), model).await;
        role.end().await;
    }
}

#[tokio::test]
async fn a_name_without_a_schema_is_never_one_of_the_servers_own() {
    let role = Role::new().await;
    let schema = role.fixture.schema.clone();
    role.set(&format!("search_path = pg_catalog, information_schema, {schema}")).await;
    let mut spec = role.fixture.spec(orders());
    spec.target = "orders".into();
    let mut config = role.fixture.config();
    let (_, host) = config.url.rsplit_once('@').unwrap();
    config.url = format!("postgres://{}:p@{host}", role.name);
    PostgresTarget::new(config, spec).unwrap().open().await.unwrap();
    assert_eq!(role.fixture.text("SELECT count(*) FROM {s}.orders").await, "0");
    role.end().await;
}

#[tokio::test]
async fn an_index_whose_name_is_taken_gets_another() {
    let role = Role::new().await;
    let mut model = orders();
    model.columns[1].index = true;
    model.columns[2].index = true;
    role.fixture
        .run(
            "CREATE TABLE {s}.other (n bigint); CREATE INDEX orders_amount_idx ON {s}.other (n); CREATE VIEW \
             {s}.orders_note_idx AS SELECT 1 AS one",
        )
        .await;
    whole_life(&role.target(model.clone()), model).await;
    let indexes = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n \
                   ON n.oid = c.relnamespace WHERE n.nspname = '{s}' AND c.relname = 'orders' AND i.indisvalid";
    assert_eq!(role.fixture.text(indexes).await, "3", "the key's and two of columns");
    assert_eq!(
        role.fixture.text("SELECT '{s}.orders_amount_idx'::regclass::oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = '{s}.other'::regclass)").await,
        "true",
        "another table's index is left alone"
    );
    role.end().await;
}
