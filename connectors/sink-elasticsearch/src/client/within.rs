//! Documents by id, as many as there is room for.

use std::sync::atomic::{AtomicUsize, Ordering};

use foldline_api::{Error, Result};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Client, Document, IN_FLIGHT};

impl Client {
    /// As [`Client::mget`], with content: an answer of more than `bytes_max` is not read, but asked for again in parts. Of the first
    /// ones that come to about `room`, and always of one: how large they are shows when they come.
    pub(crate) async fn mget_within(
        &self,
        index: &str,
        ids: &[String],
        per_request: usize,
        bytes_max: usize,
        room: usize,
    ) -> Result<Vec<Document>> {
        let came = &AtomicUsize::new(0);
        let per_request = per_request.clamp(1, self.reads.items());
        let parts = ids.chunks(per_request).map(|part| async move {
            let mut documents = Vec::with_capacity(part.len());
            let mut stack = vec![part];
            while let Some(ids) = stack.pop() {
                let bytes_max = if ids.len() > 1 { bytes_max } else { usize::MAX };
                match self.mget_request(index, ids, true, bytes_max).await {
                    Err(error) if error.is_too_much() => {
                        let (first, second) = ids.split_at(ids.len() / 2);
                        stack.extend([second, first]);
                        continue;
                    }
                    found => documents.append(&mut found?),
                }
                let (_, last) = documents.split_at(documents.len().saturating_sub(ids.len()));
                let bytes = last.iter().map(Document::bytes).sum();
                if came.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) >= room {
                    break;
                }
            }
            Ok::<_, Error>((documents.len() == part.len(), documents))
        });
        let parts = parts.collect::<Vec<_>>();
        let mut parts = stream::iter(parts).buffered(IN_FLIGHT);
        let mut all = Vec::with_capacity(ids.len());
        while let Some((whole, mut documents)) = parts.try_next().await? {
            all.append(&mut documents);
            if !whole || came.load(Ordering::Relaxed) >= room {
                break;
            }
        }
        self.reads.passed(all.len());
        Ok(all)
    }
}
