//! Bulk requests as text and their replies as types. Pure.

use std::fmt::Write as _;

use foldline_api::sink::Version;
use foldline_api::value::Value;
use foldline_api::{Error, Result, json};
use serde::Deserialize;

use crate::error::{Cause, Failure};

/// Bytes of one bulk request, at most, unless one document alone is larger.
pub(crate) const BYTES_MAX: usize = 4 << 20;
/// Documents of one bulk request, at most.
pub(crate) const ITEMS_MAX: usize = 5_000;

/// One item's lines: writes `source` under `id`, if the document is still at `version`.
pub(crate) fn write(id: &str, version: Version, source: &str) -> String {
    let mut out = String::with_capacity(source.len() + id.len() + 80);
    write_to(&mut out, id, version, |out| out.push_str(source));
    out
}

/// Appends the same to a request; `source` appends the document.
pub(crate) fn write_to(
    out: &mut String,
    id: &str,
    version: Version,
    source: impl FnOnce(&mut String),
) {
    match version {
        Version::Absent => out.push_str("{\"create\":{\"_id\":"),
        Version::At(..) => out.push_str("{\"index\":{\"_id\":"),
    }
    close(out, id, version);
    source(out);
    out.push('\n');
}

/// One item's line: deletes the document for good, if it is still at `version`.
pub(crate) fn delete(id: &str, version: Version) -> String {
    let mut out = String::from("{\"delete\":{\"_id\":");
    close(&mut out, id, version);
    out
}

fn close(out: &mut String, id: &str, version: Version) {
    json::write(&Value::text(id), out);
    if let Version::At(seq_no, primary_term) = version {
        let _ = write!(out, ",\"if_seq_no\":{seq_no},\"if_primary_term\":{primary_term}");
    }
    out.push_str("}}\n");
}

/// Appends an item's lines to a request.
pub(crate) type Lines<'a> = dyn Fn(usize, &mut String) + Sync + 'a;

/// Cuts items into requests, in order, by bytes and by count (at most `items_max`): which items, and their lines. A request is written when
/// it is asked for, so that no more of them is in memory than is on its way.
pub(crate) fn requests<'a>(
    items: &'a [usize],
    lines: &'a Lines<'_>,
    items_max: usize,
) -> impl Iterator<Item = (Vec<usize>, String)> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let (mut body, mut count) = (String::new(), 0);
        while count < items_max
            && let Some(&item) = rest.get(count)
        {
            let before = body.len();
            lines(item, &mut body);
            if count > 0 && body.len() > BYTES_MAX {
                body.truncate(before);
                break;
            }
            count += 1;
        }
        let (items, behind) = rest.split_at(count);
        rest = behind;
        (!items.is_empty()).then(|| (items.to_vec(), body))
    })
}

/// What became of one item: its new version, or why it failed.
pub(crate) type Outcome = Result<Version, Failure>;

#[derive(Deserialize)]
struct Reply {
    items: Vec<Slot>,
}

#[derive(Deserialize)]
struct Slot {
    create: Option<Item>,
    index: Option<Item>,
    delete: Option<Item>,
    update: Option<Item>,
}

#[derive(Deserialize)]
struct Item {
    status: u16,
    #[serde(rename = "_seq_no")]
    seq_no: Option<u64>,
    #[serde(rename = "_primary_term")]
    primary_term: Option<u64>,
    error: Option<Cause>,
}

/// Only these parts of a reply are asked for.
pub(crate) const FILTER: &str = "items.*.status,items.*._seq_no,items.*._primary_term,\
                                 items.*.error.type,items.*.error.reason";

/// Reads a bulk reply: one outcome per item, in the request's order.
///
/// # Errors
/// Retriable, when it is not the reply to so many items: the outcome is then unknown.
pub(crate) fn decode(body: &[u8], items: usize) -> Result<Vec<Outcome>> {
    let reply: Reply = serde_json::from_slice(body)
        .map_err(|error| Error::retriable("unreadable bulk reply").with_source(error))?;
    if reply.items.len() != items {
        return Err(Error::retriable(format!(
            "a bulk reply with {} items to a request with {items}",
            reply.items.len()
        )));
    }
    Ok(reply.items.into_iter().map(outcome).collect())
}

fn outcome(slot: Slot) -> Outcome {
    let unknown = || Failure { status: 500, cause: Cause::default() };
    let item = slot.create.or(slot.index).or(slot.delete).or(slot.update).ok_or_else(unknown)?;
    if let Some(cause) = item.error {
        return Err(Failure { status: item.status, cause });
    }
    match (item.status, item.seq_no, item.primary_term) {
        (200..300, Some(seq_no), Some(term)) => Ok(Version::At(seq_no, term)),
        (404, ..) => Ok(Version::Absent), // A delete of what is not there.
        (status, ..) if status >= 300 => Err(Failure { status, cause: Cause::default() }),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Fault;

    #[test]
    fn items_carry_their_guard() {
        assert_eq!(write("a\"1", Version::Absent, "{}"), "{\"create\":{\"_id\":\"a\\\"1\"}}\n{}\n");
        assert_eq!(
            write("1", Version::At(7, 2), "{\"x\":1}"),
            "{\"index\":{\"_id\":\"1\",\"if_seq_no\":7,\"if_primary_term\":2}}\n{\"x\":1}\n"
        );
        assert_eq!(
            delete("1", Version::At(7, 2)),
            "{\"delete\":{\"_id\":\"1\",\"if_seq_no\":7,\"if_primary_term\":2}}\n"
        );
    }

    /// Which of the items of these sizes go into which request.
    fn cut(sizes: &[usize]) -> Vec<Vec<usize>> {
        let items: Vec<usize> = (0..sizes.len()).collect();
        let lines = |item: usize, out: &mut String| out.push_str(&"x".repeat(sizes[item]));
        let requests = requests(&items, &lines, ITEMS_MAX).map(|(of, body)| {
            assert_eq!(body.len(), of.iter().map(|item| sizes[*item]).sum::<usize>());
            assert!(of.len() == 1 || body.len() <= BYTES_MAX);
            of
        });
        requests.collect()
    }

    #[test]
    fn requests_are_cut_by_bytes_and_count() {
        assert_eq!(cut(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(cut(&[BYTES_MAX * 2, 1, BYTES_MAX, 1]), [[0], [1], [2], [3]]);
        assert_eq!(cut(&[BYTES_MAX / 2; 5]), [vec![0, 1], vec![2, 3], vec![4]]);
        let many = cut(&vec![1; ITEMS_MAX + 1]);
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [ITEMS_MAX, 1]);
    }

    #[test]
    fn a_reply_is_read_item_by_item() {
        let body = br#"{"errors":true,"items":[
            {"create":{"status":201,"_seq_no":3,"_primary_term":1}},
            {"index":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"x"}}},
            {"delete":{"status":404}},
            {"index":{"status":200}},
            {"create":{"status":409}}]}"#;
        let outcomes = decode(body, 5).unwrap();
        assert_eq!(outcomes[0], Ok(Version::At(3, 1)));
        assert_eq!(outcomes[1].as_ref().unwrap_err().fault(), Fault::Conflict);
        assert_eq!(outcomes[2], Ok(Version::Absent));
        assert_eq!(outcomes[3].as_ref().unwrap_err().fault(), Fault::Retriable);
        assert_eq!(outcomes[4].as_ref().unwrap_err().fault(), Fault::Conflict);
        assert!(decode(body, 6).is_err());
        assert!(decode(b"<html>", 1).is_err());
    }

    /// Replies that are nearly right, as of a proxy that cuts or a version that words them otherwise.
    #[test]
    fn no_mutated_reply_breaks_the_decoder() {
        const REPLIES: [&str; 4] = [
            r#"{"items":[{"create":{"status":201,"_seq_no":3,"_primary_term":1}}]}"#,
            r#"{"items":[{"index":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"x"}}}]}"#,
            r#"{"errors":true,"items":[{"delete":{"status":404}},{"index":{"status":200}}]}"#,
            r#"{"error":{"type":"es_rejected_execution_exception","reason":"r"},"status":429}"#,
        ];
        const WORDS: [&str; 10] = [
            "items", "index", "create", "status", "_seq_no", "error", "type", "200", "429", "null",
        ];
        let seconds = std::env::var("FOLDLINE_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
        let end = seconds.map(std::time::Duration::from_secs);
        let (start, mut tried, mut read) = (std::time::Instant::now(), 0_u32, 0_u32);
        let mut rng = foldline_testkit::Rng::new(5);
        while end.map_or(tried < 20_000, |end| start.elapsed() < end) {
            let mut pick = || REPLIES[usize::try_from(rng.below(4)).unwrap()];
            let (base, donor) = (pick(), pick());
            let reply = foldline_testkit::mutate::mutate(&mut rng, base, donor, &WORDS);
            for items in 0..3 {
                if let Ok(outcomes) = decode(reply.as_bytes(), items) {
                    assert_eq!(outcomes.len(), items, "{reply}");
                    outcomes.iter().flatten().for_each(|version| drop(format!("{version:?}")));
                    for failure in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
                        drop(failure.error("writing").to_string());
                    }
                    read += 1;
                }
            }
            tried += 1;
        }
        assert!(read > 0, "some are read all the same");
        println!("{tried} replies, {read} of them read");
    }

    proptest! {
        #[test]
        fn no_reply_breaks_the_decoder(body in prop::collection::vec(any::<u8>(), 0..200), n in 0usize..3) {
            let _ = decode(&body, n);
        }

        #[test]
        fn cuts_cover_every_item_once(sizes in prop::collection::vec(0usize..BYTES_MAX, 0..8)) {
            let flat: Vec<usize> = cut(&sizes).into_iter().flatten().collect();
            prop_assert_eq!(flat, (0..sizes.len()).collect::<Vec<_>>());
        }
    }
}
