//! A request's body as it comes in: within a time, and until it is in, the request is not one that is being answered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::Connection;

/// Marks a connection as answering a request, once the request is in and until this is gone.
pub(super) struct Busy {
    connection: Arc<Connection>,
    is_set: AtomicBool,
}

impl Busy {
    /// Not marked yet.
    pub(super) fn new(connection: &Arc<Connection>) -> Self {
        Busy { connection: Arc::clone(connection), is_set: AtomicBool::new(false) }
    }

    /// The request is in, or is being answered without the rest of it.
    pub(super) fn set(&self) {
        if !self.is_set.swap(true, Ordering::Relaxed) {
            self.connection.answering.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if *self.is_set.get_mut() {
            self.connection.answering.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// See the module.
pub(super) struct Received {
    body: Incoming,
    within: Duration,
    until: Pin<Box<Sleep>>,
    busy: Arc<Busy>,
}

impl Received {
    pub(super) fn new(body: Incoming, within: Duration, busy: Arc<Busy>) -> Self {
        if body.is_end_stream() {
            busy.set();
        }
        Received { body, within, until: Box::pin(tokio::time::sleep(within)), busy }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            if frame.is_none() || this.body.is_end_stream() {
                this.busy.set();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(this.until.as_mut().poll(context));
        Poll::Ready(Some(Err(Late(this.within).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body was not there in time.
#[derive(Debug)]
pub(in crate::admin) struct Late(Duration);

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the body took over {:?}", self.0)
    }
}

impl std::error::Error for Late {}
