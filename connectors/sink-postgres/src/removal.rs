//! A target that goes for good, in one transaction.

use foldline_api::Result;
use foldline_api::removal::{Keep, Owned, Removed, generations};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::books::{Books, Param};
use crate::carry::{Table, texts};
use crate::config::PostgresConfig;
use crate::identifier::literal;
use crate::pool::{Pool, Use};
use crate::row::{FromRow, get};
use crate::session::{Lane, within};
use crate::target::{CALL_LIMIT, LOCK_BRIEFLY, PostgresTarget};

impl PostgresTarget {
    /// Drops the tables of all generations, and what the books keep of the target. Locks as all others do: the target's row,
    /// then tables.
    pub(crate) async fn remove_in(&self, client: &Client, keep: Keep) -> Result<Removed> {
        let mut removed = Removed::default();
        let label = self.resolve(client).await?.label();
        if !self.books.exist(client).await?
            || self.books.entry(client, &label, "FOR UPDATE").await?.is_none()
        {
            return Ok(removed);
        }
        // Tables of an older build of Foldline lack some.
        self.books.ensure(client).await?;
        let at = self.standing(client, "FOR UPDATE").await?;
        self.run(client, LOCK_BRIEFLY).await?;
        for (number, physical) in generations(Some(&at.record()), &self.spec, keep)? {
            let name = match at.generation(number) {
                Some(beside) => at.table(beside).name,
                None => at.live.name.clone(),
            };
            let stands = format!("SELECT to_regclass({})::oid::text", literal(&name.sql()));
            match texts(client, &stands).await?.pop() {
                Some(oid) if oid == physical => {
                    let table = Table { name, oid: oid.parse().unwrap_or(0) };
                    self.drop_table(client, &table).await?;
                    removed.dropped.push(table.name.label());
                }
                Some(_) => removed.strangers.push(name.label()),
                None => {}
            }
        }
        self.books.forget_target(client, &label).await?;
        Ok(removed)
    }
}

impl Books {
    /// Deletes all that is kept of a target, in each of the tables.
    async fn forget_target(&self, client: &Client, target: &str) -> Result<()> {
        for table in self.names() {
            let delete = format!("DELETE FROM {table} WHERE target = $1");
            self.execute(client, &delete, &[(&target, Type::TEXT)]).await?;
        }
        Ok(())
    }
}

/// The targets of a connector that the books in this database know.
pub(crate) async fn owned(config: &PostgresConfig, connector: &str) -> Result<Vec<Owned>> {
    let books = Books::new(&config.schema);
    let lane = Lane::new(&Pool::shared(config)?, Use::Brief, connector);
    within(CALL_LIMIT, "reading the books", async {
        let session = lane.snapshot().await?;
        let result = async {
            if !books.exist(&session.client).await? {
                return Ok(Vec::new());
            }
            let sql = sql!("owned", schema = books.schema);
            let params: [Param<'_>; 1] = [(&connector, Type::TEXT)];
            books.select(&session.client, &sql, &params).await
        }
        .await;
        session.finish(result).await
    })
    .await
}

impl FromRow for Owned {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Owned {
            target: get(row, "target")?,
            worker: get(row, "worker")?,
            connector: get(row, "connector")?,
            group: get(row, "consumer_group")?,
            log: get(row, "log")?,
        })
    }
}
