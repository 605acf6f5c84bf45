//! What every sink must do.

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::kind::Sink;
use foldline_api::sink::{Target, TargetSpec};
use foldline_testkit::contract::Meddling;
use foldline_testkit::{Store, sink_contract};

use crate::support::{Fixture, dump, load, url};

struct Postgres(Fixture);

#[async_trait]
impl Store for Postgres {
    async fn target(&self, spec: TargetSpec) -> Arc<dyn Target> {
        self.0.config().target(spec).unwrap()
    }

    async fn drop_target(&self, target: &str) {
        self.0.sql.batch_execute(&format!("DROP TABLE {target}")).await.unwrap();
    }

    async fn copy_target(&self, target: &str) {
        let books = format!("{}_books", self.0.schema);
        let (kept, all) = (format!("{target}__g*"), format!("{books}.*"));
        let dump = dump(&url(), &["-t", target, "-t", &kept, "-t", &all]);
        let (schema, table) = target.split_once('.').unwrap();
        let stand = format!(
            "SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables WHERE schemaname = \
             '{books}' OR (schemaname = '{schema}' AND (tablename = '{table}' OR starts_with(tablename, \
             '{table}__g')))"
        );
        let stand = self.0.text(&stand).await;
        self.0.run(&format!("DROP TABLE {stand}")).await;
        load(&url(), &dump);
    }

    fn name(&self, case: &str) -> String {
        format!("{}.{case}", self.0.schema)
    }

    fn gathers(&self) -> bool {
        true
    }

    fn looks_up(&self) -> bool {
        true
    }

    async fn meddle(&self, target: &str, what: Meddling) -> bool {
        let sql = match what {
            Meddling::LoseColumn(column) => format!("ALTER TABLE {target} DROP COLUMN {column}"),
            Meddling::AddIndex(column) => format!("CREATE INDEX ON {target} ({column})"),
            Meddling::KeepOut => format!(
                "CREATE FUNCTION {target}_out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
                 CREATE TRIGGER only_real BEFORE INSERT OR UPDATE ON {target} FOR EACH ROW WHEN (NEW.name = 'test') \
                 EXECUTE FUNCTION {target}_out()"
            ),
            Meddling::KeepEqual => format!(
                "CREATE TRIGGER z_min BEFORE UPDATE ON {target} FOR EACH ROW EXECUTE FUNCTION \
                 suppress_redundant_updates_trigger()"
            ),
        };
        self.0.sql.batch_execute(&sql).await.unwrap();
        true
    }
}

#[tokio::test]
async fn postgres_keeps_the_contract_of_a_sink() {
    sink_contract(&Postgres(Fixture::new().await)).await;
}
