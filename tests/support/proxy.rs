//! A TCP proxy between the worker and a server, which does to connections what networks do: cuts, delays, goes silent,
//! ends in the middle of an answer, or loses the answer to what was done.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::wait;

/// What is said through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Postgres,
    Http,
    /// Frames; the broker's own address in answers becomes the proxy's.
    Kafka,
}

/// What happens to the next answers, as often as it is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Half of an answer comes, then the connection ends.
    Truncate,
    /// A request that changes something (a commit, a bulk, a commit of offsets) is done; its answer is lost, and the
    /// connection ends.
    LoseReply,
}

/// A proxy in front of one server; it ends with the test's runtime.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    protocol: Protocol,
    server: String,
    own_port: u16,
    /// Connections made before this one are cut.
    cut: watch::Sender<u64>,
    /// Connections made before this one are silent for good: nothing moves, and nobody is told.
    silent: watch::Sender<u64>,
    /// Nobody is let through any more.
    closed: AtomicBool,
    /// Requests go through, and no answer comes back.
    mute: AtomicBool,
    made: AtomicU64,
    delay: Mutex<Duration>,
    armed: Mutex<Option<(Fault, u64)>>,
    /// How often an armed fault struck.
    hits: AtomicU64,
}

impl Proxy {
    /// In front of `server` (`host:port`).
    pub(crate) async fn start(protocol: Protocol, server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            protocol,
            server: server.to_owned(),
            own_port: address.port(),
            cut: watch::Sender::new(0),
            silent: watch::Sender::new(0),
            closed: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            made: AtomicU64::new(0),
            delay: Mutex::new(Duration::ZERO),
            armed: Mutex::new(None),
            hits: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&accepting);
                let number = shared.made.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move { shared.connection(client, number).await });
            }
        });
        Proxy { address, shared }
    }

    /// Ends every connection; new ones are let through.
    pub(crate) fn cut(&self) {
        self.shared.cut.send_replace(self.shared.made.load(Ordering::SeqCst));
    }

    /// Ends every connection, and lets nobody through until it is opened again.
    pub(crate) fn close(&self, closed: bool) {
        self.shared.closed.store(closed, Ordering::SeqCst);
        self.cut();
    }

    /// Requests go through and are carried out, and no answer comes back, until it speaks again: then by new connections.
    pub(crate) fn mute(&self, mute: bool) {
        self.shared.mute.store(mute, Ordering::SeqCst);
        if !mute {
            self.cut();
        }
    }

    /// Leaves every connection half open, for good; new ones are let through.
    pub(crate) fn silence(&self) {
        self.shared.silent.send_replace(self.shared.made.load(Ordering::SeqCst));
    }

    /// From now on each piece waits for so long on its way.
    pub(crate) fn delay(&self, by: Duration) {
        *self.shared.delay.lock().unwrap() = by;
    }

    /// Lets the fault strike `times`, and waits until it has.
    pub(crate) async fn strike(&self, fault: Fault, times: u64) {
        let before = self.shared.hits.load(Ordering::SeqCst);
        *self.shared.armed.lock().unwrap() = Some((fault, times));
        wait::until(&format!("{fault:?} strikes"), wait::LATER, async || {
            let struck = self.shared.hits.load(Ordering::SeqCst) - before;
            if struck == times { Ok(()) } else { Err(format!("{struck} of {times}")) }
        })
        .await;
    }

    /// How many connections were made through it.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.made.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn connection(&self, client: TcpStream, number: u64) {
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        // A server that is away refuses; so does its proxy.
        let Ok(server) = TcpStream::connect(&self.server).await else { return };
        let (mut cut, mut silent) = (self.cut.subscribe(), self.silent.subscribe());
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let changes = watch::Sender::new(0_u64);
        let said = async {
            tokio::select! {
                () = self.requests(from_client, to_server, &changes) => {}
                () = self.answers(from_server, to_client, &changes) => {}
            }
        };
        let mut said = std::pin::pin!(said);
        let silenced = tokio::select! {
            () = &mut said => false,
            _ = cut.wait_for(|before| number < *before) => false,
            _ = silent.wait_for(|before| number < *before) => true,
        };
        if silenced {
            // The sockets stay open, and nobody reads them or writes to them.
            std::future::pending::<()>().await;
        }
    }

    /// `changes` counts the requests that change something.
    async fn requests(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        changes: &watch::Sender<u64>,
    ) {
        while let Some(piece) = self.piece(&mut from).await {
            if self.changes_something(&piece) {
                changes.send_modify(|count| *count += 1);
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    }

    async fn answers(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        changes: &watch::Sender<u64>,
    ) {
        let mut answered = 0;
        while let Some(mut piece) = self.piece(&mut from).await {
            if self.mute.load(Ordering::SeqCst) {
                continue;
            }
            let asked = *changes.borrow();
            let changed = std::mem::replace(&mut answered, asked) < asked;
            match self.fault(changed) {
                Some(Fault::LoseReply) => return,
                Some(Fault::Truncate) => {
                    let half = piece.len() / 2;
                    // The other side may be gone, which is as good.
                    drop(to.write_all(&piece[..half]).await);
                    return;
                }
                None => {}
            }
            if self.protocol == Protocol::Kafka {
                self.rename(&mut piece);
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    }

    /// What comes next, a frame where there are such; none at the end.
    async fn piece(&self, from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
        let mut piece = Vec::with_capacity(1 << 16);
        if self.protocol == Protocol::Kafka {
            let length = from.read_u32().await.ok()?;
            piece.extend(length.to_be_bytes());
            piece.resize(4 + length as usize, 0);
            from.read_exact(&mut piece[4..]).await.ok()?;
        } else if from.read_buf(&mut piece).await.ok()? == 0 {
            return None;
        }
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            // The fault itself, not a wait for anything.
            tokio::time::sleep(delay).await;
        }
        Some(piece)
    }

    fn changes_something(&self, piece: &[u8]) -> bool {
        let has = |needle: &[u8]| piece.windows(needle.len()).any(|window| window == needle);
        match self.protocol {
            Protocol::Postgres => has(b"COMMIT\0"),
            Protocol::Http => piece.starts_with(b"POST ") && has(b"/_bulk?"),
            // The key of `OffsetCommit`.
            Protocol::Kafka => piece.get(4..6) == Some(&[0, 8]),
        }
    }

    /// The fault that strikes an answer now; `changed` says that it is one to a change.
    fn fault(&self, changed: bool) -> Option<Fault> {
        let mut armed = self.armed.lock().unwrap();
        let (fault, left) = armed.take()?;
        if fault == Fault::LoseReply && !changed {
            *armed = Some((fault, left));
            return None;
        }
        *armed = (left > 1).then_some((fault, left - 1));
        self.hits.fetch_add(1, Ordering::SeqCst);
        Some(fault)
    }

    /// Brokers tell their address: host and port, one behind the other.
    fn rename(&self, answer: &mut [u8]) {
        let (host, port) = self.server.rsplit_once(':').unwrap();
        let port: i32 = port.parse().unwrap();
        let told = [host.as_bytes(), &port.to_be_bytes()].concat();
        let own = i32::from(self.own_port).to_be_bytes();
        for at in 0..answer.len().saturating_sub(told.len() - 1) {
            if answer[at..].starts_with(&told) {
                answer[at + host.len()..at + told.len()].copy_from_slice(&own);
            }
        }
    }
}
