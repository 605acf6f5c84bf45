//! What stands where the table is to be.

use foldline_api::sink::TargetSpec;
use foldline_api::{Error, Result};
use tokio_postgres::Client;

use crate::identifier::TableName;
use crate::schema::{self, Relation};
use crate::target::PostgresTarget;

/// The table's place: its full name, and what stands there.
pub(crate) struct Site {
    pub(crate) table: TableName,
    pub(crate) label: String,
    pub(crate) relation: Option<Relation>,
}

impl Site {
    pub(crate) async fn find(target: &PostgresTarget, client: &Client) -> Result<Self> {
        let table = target.resolve(client).await?;
        let schema = table.schema.as_deref().unwrap_or_default();
        let relation = schema::inspect(client, schema, &table.table).await?;
        if let Some(reason) = relation.as_ref().and_then(|relation| relation.refused.as_ref()) {
            return Err(Error::config(format!(
                "{:?} is {reason}: rows and positions cannot be kept together there, give connector {:?} \
                 another table",
                table.label(),
                target.spec.connector
            )));
        }
        Ok(Site { label: table.label(), table, relation })
    }

    /// Where the table differs from the plan.
    pub(crate) fn differences(&self, spec: &TargetSpec) -> Vec<String> {
        let Some(relation) = &self.relation else {
            return vec![format!("table {:?} does not exist", self.label)];
        };
        let mut out = relation.misfits(&spec.model);
        let planned = |name: &str| spec.model.position(name).is_some();
        let own = relation.columns.iter().map(|column| column.name()).filter(|name| !planned(name));
        out.extend(own.map(|name| format!("column {name:?} is there, and the plan has none")));
        let missing = relation.missing_indexes(&self.table, &spec.model);
        out.extend(missing.iter().map(|sql| format!("an index is missing: {sql}")));
        out
    }

    /// An index on a table with rows would lock it for long: that one is the user's to create.
    pub(crate) fn index_notices(&self, spec: &TargetSpec) -> Vec<String> {
        let Some(relation) = &self.relation else {
            return Vec::new();
        };
        relation
            .missing_indexes(&self.table, &spec.model)
            .iter()
            .map(|sql| {
                let sql = sql.replacen("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1);
                format!("table {:?} lacks an index of the projection: {sql}", self.label)
            })
            .collect()
    }
}
