//! The connections of one sink on one worker: so many at most, shared by all its connectors, each used by one caller at
//! a time and closed when it was idle for a while.
//!
//! Why nobody waits for ever: whoever holds a connection and may keep it for long is of a kind that has turns of its own,
//! of which there are fewer than connections ([`Use::Reading`], [`Use::Building`]), and takes its turn first. All
//! others ([`Use::Brief`]) hold one connection, end by a time limit, and wait for no other connection meanwhile. So at least
//! two connections always come back, and whoever reads may write beside it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use foldline_api::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::config::{Endpoint, PostgresConfig};
use crate::error::classify;
use crate::session::connect;

/// Fewer leave no two for flushes beside one that builds an index and one that verifies.
pub(crate) const CONNECTIONS_MIN: u16 = 4;
/// So long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(20);

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A flush, a load, a look: it ends soon, and waits for no other connection.
    Brief,
    /// A snapshot, for as long as its reader takes: all but three of the connections at most.
    Reading,
    /// Building an index or emptying a table: one at a time.
    Building,
}

/// See the module.
pub(crate) struct Pool {
    pub(crate) endpoint: Endpoint,
    all: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    building: Arc<Semaphore>,
    idle: Mutex<Idle>,
    /// When the server that answered last was started, and how often it was another than before.
    server: Mutex<Option<i64>>,
    servers: AtomicU64,
}

#[derive(Default)]
struct Idle {
    clients: Vec<(Client, Instant)>,
    /// Whether someone closes those that stay idle.
    watched: bool,
}

/// What a caller holds beside its connection; given back after that.
pub(crate) struct Permits {
    _turn: Option<OwnedSemaphorePermit>,
    _connection: OwnedSemaphorePermit,
}

/// The pools of this process; a config's sink has one whatever its connectors are.
static POOLS: Mutex<Vec<(PostgresConfig, Weak<Pool>)>> = Mutex::new(Vec::new());

impl Pool {
    /// The pool of `config`, made where there is none.
    pub(crate) fn shared(config: &PostgresConfig) -> Result<Arc<Self>> {
        let endpoint = Endpoint::new(config)?;
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|(_, pool)| pool.strong_count() > 0);
        let known = pools.iter().find(|(of, _)| of == config).and_then(|(_, pool)| pool.upgrade());
        if let Some(pool) = known {
            return Ok(pool);
        }
        let count = config.connections.max(CONNECTIONS_MIN.into());
        let permits = |count| Arc::new(Semaphore::new(count));
        let pool = Arc::new(Pool {
            endpoint,
            all: permits(count),
            reading: permits(count - 3),
            building: permits(1),
            idle: Mutex::default(),
            server: Mutex::default(),
            servers: AtomicU64::new(0),
        });
        pools.push((config.clone(), Arc::downgrade(&pool)));
        Ok(pool)
    }

    /// A connection, when there is one to be had. Turns are taken before connections, always in this order.
    pub(crate) async fn take(self: &Arc<Self>, wanted: Use) -> Result<(Client, Permits)> {
        let closed = |_| Error::retriable("the pool of connections is closed");
        let turn = match wanted {
            Use::Brief => None,
            Use::Reading => Some(Arc::clone(&self.reading).acquire_owned().await.map_err(closed)?),
            Use::Building => {
                Some(Arc::clone(&self.building).acquire_owned().await.map_err(closed)?)
            }
        };
        let permit = Arc::clone(&self.all).acquire_owned().await.map_err(closed)?;
        let client = match self.idle() {
            Some(client) => client,
            None => self.connect().await?,
        };
        Ok((client, Permits { _turn: turn, _connection: permit }))
    }

    async fn connect(&self) -> Result<Client> {
        let client = connect(&self.endpoint).await?;
        let sql = "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8";
        let wrong = |error| classify(error, &self.endpoint.place);
        let rows = client.query_typed(sql, &[]).await.map_err(wrong)?;
        if let Some(row) = rows.first() {
            self.meet(row.try_get(0).map_err(wrong)?);
        }
        Ok(client)
    }

    /// A server that was started then answers.
    pub(crate) fn meet(&self, started: i64) {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.replace(started).is_some_and(|before| before != started) {
            self.servers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often another server answered than before.
    pub(crate) fn servers(&self) -> u64 {
        self.servers.load(Ordering::Relaxed)
    }

    fn idle(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clients.retain(|(client, _)| !client.is_closed());
        idle.clients.pop().map(|(client, _)| client)
    }

    /// Takes a connection back that has no transaction on it.
    pub(crate) fn give_back(self: &Arc<Self>, client: Client) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clients.push((client, Instant::now()));
        if !idle.watched {
            idle.watched = true;
            tokio::spawn(close_idle(Arc::downgrade(self)));
        }
    }
}

/// Closes what stays idle, until there is nothing to be closed.
async fn close_idle(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.clients.retain(|(client, since)| !client.is_closed() && since.elapsed() < IDLE);
        if idle.clients.is_empty() {
            idle.watched = false;
            return;
        }
    }
}
