//! The notes, as the books keep them: a document for each generation, looked-up target and key.
//!
//! A note that comes again is the same document at another version. So whoever has followed it deletes it by the version that
//! was read, and one that came again meanwhile stays.

use foldline_api::model::Key;
use foldline_api::sink::Version;
use foldline_api::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::books::{ALIAS, ATTEMPTS, Books, TargetDoc, Versioned, text};
use crate::bulk;
use crate::document::hex;
use crate::search::Page;
use crate::target::contended;
use crate::writer::now_millis;

/// So many notes of one generation become one that says: all rows.
const NOTES_MAX: u64 = 20_000;
/// So many notes are read at a time.
const NOTES_READ: usize = 5_000;
/// A key with a longer text is noted as all rows: a search would not find what shows it.
const KEY_BYTES_MAX: usize = 2_000;
/// In the place of a topic: who follows a target.
const FOLLOWERS: &str = "#followers";
/// In the place of a topic: that notes were left.
const PULSE: &str = "#pulse";
/// Live rows are promised to be no further behind than so many milliseconds.
const STALE: i64 = 2_000;

/// A generation of a target that shows something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Follower {
    pub(crate) target: String,
    pub(crate) generation: u64,
    /// The life of the looked-up target that its rows were looked at for; empty until they are.
    pub(crate) seen: String,
}

impl Follower {
    pub(crate) fn new(target: &str, generation: u64) -> Self {
        Follower { target: target.to_owned(), generation, seen: String::new() }
    }

    /// What its notes have in the place of a target.
    pub(crate) fn place(&self) -> String {
        format!("{}#notes#{}", self.target, self.generation)
    }

    pub(crate) fn is(&self, other: &Follower) -> bool {
        self.target == other.target && self.generation == other.generation
    }

    fn pulse_id(&self) -> String {
        format!("pulse:{}:{}", self.target, self.generation)
    }
}

/// Who shows rows of a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FollowersDoc {
    pub(crate) target: String,
    topic: String,
    pub(crate) followers: Vec<Follower>,
}

/// A place of the books that is still as it was before a flush, and so may be the flush's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Until {
    pub(crate) id: String,
    seq_no: u64,
    term: u64,
}

impl Until {
    pub(crate) fn new(id: String, version: Version) -> Option<Self> {
        match version {
            Version::At(seq_no, term) => Some(Until { id, seq_no, term }),
            Version::Absent => None,
        }
    }

    pub(crate) fn version(&self) -> Version {
        Version::At(self.seq_no, self.term)
    }
}

/// What has still to be looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NoteDoc {
    target: String,
    /// The looked-up target.
    pub(crate) topic: String,
    /// When it was left first, in milliseconds since the epoch.
    pub(crate) offset: i64,
    /// The other row's key; all rows where there is none.
    pub(crate) key: Option<String>,
    /// The sequence number up to which rows were looked at.
    #[serde(default)]
    pub(crate) after: Option<i64>,
    /// It is left for a change that need not be there before that.
    #[serde(default)]
    pub(crate) until: Option<Until>,
    #[serde(default)]
    renewed: i64,
}

/// A note that was found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) version: Version,
    pub(crate) noted_at: i64,
}

/// A key as notes keep it; none where all rows are to be looked at instead.
pub(crate) fn noted(key: &Key) -> Option<String> {
    let text = key.to_string();
    (text.len() <= KEY_BYTES_MAX).then_some(text)
}

pub(crate) fn note_id(place: &str, looked_up: &str, key: Option<&str>) -> String {
    let of = json!([place, looked_up, key]).to_string();
    format!("note:{}", hex(&Sha256::digest(of.as_bytes())))
}

/// Leaves a note, or the same one anew.
fn item(follower: &Follower, looked_up: &str, key: Option<&str>, until: Option<&Until>) -> String {
    let (place, now) = (follower.place(), now_millis());
    let id = note_id(&place, looked_up, key);
    let doc = json!({
        "doc": { "after": null, "until": until, "renewed": now },
        "upsert": {
            "target": place, "topic": looked_up, "offset": now, "key": key, "after": null,
            "until": until, "renewed": now,
        },
        // Its version is another one in any case.
        "detect_noop": false,
    });
    format!("{}\n{doc}\n", json!({ "update": { "_id": id, "retry_on_conflict": 5 } }))
}

impl Books {
    /// Leaves notes of keys of a target's rows for those that follow it.
    pub(crate) async fn note(
        &self,
        followers: &[Follower],
        looked_up: &str,
        keys: &[Option<String>],
        until: Option<&Until>,
    ) -> Result<()> {
        let of =
            |follower| keys.iter().map(move |key| item(follower, looked_up, key.as_deref(), until));
        let items: Vec<String> = followers.iter().flat_map(of).collect();
        if items.is_empty() {
            return Ok(());
        }
        if self.put(&items).await?.iter().any(Option::is_none) {
            return Err(contended());
        }
        // Once they stand: whoever sees this change finds them.
        let pulse = |follower: &Follower| {
            let head = json!({ "index": { "_id": follower.pulse_id() } });
            let target = format!("{}{PULSE}", follower.target);
            format!("{head}\n{}\n", json!({ "target": target, "topic": PULSE }))
        };
        let pulses: Vec<String> = followers.iter().map(pulse).collect();
        self.put(&pulses).await.map(drop)
    }

    /// The version of what changes each time that notes were left.
    pub(crate) async fn pulse(&self, follower: &Follower) -> Result<Version> {
        let found = self.client.mget(ALIAS, &[follower.pulse_id()], false, 1).await?;
        Ok(found.first().map_or(Version::Absent, |found| found.version))
    }

    fn followers_id(target: &str) -> String {
        format!("followers:{target}")
    }

    /// Who follows each of these targets.
    pub(crate) async fn followers(&self, targets: &[&str]) -> Result<Vec<Versioned<FollowersDoc>>> {
        let ids: Vec<String> = targets.iter().map(|target| Self::followers_id(target)).collect();
        let found = self.read::<FollowersDoc>(&ids).await?;
        let none = |target: &&str| Versioned {
            value: FollowersDoc {
                target: (*target).to_owned(),
                topic: FOLLOWERS.to_owned(),
                followers: Vec::new(),
            },
            version: Version::Absent,
        };
        Ok(targets
            .iter()
            .zip(found)
            .map(|(target, doc)| doc.unwrap_or_else(|| none(target)))
            .collect())
    }

    /// Changes who follows a target; nothing is written where `change` changes nothing.
    pub(crate) async fn change_followers(
        &self,
        target: &str,
        change: impl Fn(&mut Vec<Follower>) + Send + Sync,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let Some(mut doc) = self.followers(&[target]).await?.pop() else { break };
            let before = doc.value.followers.clone();
            change(&mut doc.value.followers);
            if doc.value.followers == before {
                return Ok(());
            }
            let item = bulk::write(&Self::followers_id(target), doc.version, &text(&doc.value)?);
            if self.put(&[item]).await?.pop().flatten().is_some() {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// This target follows no other any more.
    pub(crate) async fn follow_none(&self) -> Result<()> {
        self.refresh().await?;
        let search = json!({
            "size": NOTES_READ,
            "seq_no_primary_term": true,
            "query": { "term": { "topic": FOLLOWERS } },
            "sort": [{ "_seq_no": "asc" }],
        });
        let path = format!("/{ALIAS}/_search");
        let doing = "looking for targets that are looked up";
        let page: Page<FollowersDoc> = self.client.search(&path, &search, doing).await?;
        for hit in page.into_hits() {
            let ours = |follower: &Follower| follower.target == self.target;
            if hit.source.followers.iter().any(ours) {
                let leave = |all: &mut Vec<Follower>| all.retain(|follower| !ours(follower));
                self.change_followers(&hit.source.target, leave).await?;
            }
        }
        Ok(())
    }

    /// The records of other targets, in the order of their names.
    pub(crate) async fn targets(&self, names: &[&str]) -> Result<Vec<Option<TargetDoc>>> {
        let ids: Vec<String> = names.iter().map(|name| format!("target:{name}")).collect();
        let found = self.read::<TargetDoc>(&ids).await?;
        Ok(found.into_iter().map(|doc| doc.map(|doc| doc.value)).collect())
    }

    /// The first notes of a generation as a search sees them, the oldest first, and how many there are, up to a bound.
    pub(crate) async fn find_notes(
        &self,
        follower: &Follower,
        max: usize,
    ) -> Result<(Vec<Found>, u64)> {
        let search = json!({
            "size": max.min(NOTES_READ),
            "seq_no_primary_term": true,
            "track_total_hits": NOTES_MAX + 1,
            "_source": false,
            "query": { "term": { "target": follower.place() } },
            "sort": [{ "offset": "asc" }, { "_seq_no": "asc" }],
        });
        let path = format!("/{ALIAS}/_search");
        let doing = "looking for rows that are to be shown anew";
        let page: Page<Option<Box<RawValue>>> = self.client.search(&path, &search, doing).await?;
        let total = page.total();
        let found = page.into_hits().into_iter().map(|hit| {
            let noted_at = hit.sort.first().and_then(Json::as_i64).unwrap_or_default();
            Found { version: hit.version(), noted_at, id: hit.id }
        });
        Ok((found.collect(), total))
    }

    /// Makes one note of too many, of each looked-up target; whether there were too many.
    pub(crate) async fn collapse(
        &self,
        follower: &Follower,
        looked_up: &[&str],
        total: u64,
    ) -> Result<bool> {
        if total <= NOTES_MAX {
            return Ok(false);
        }
        let place = follower.place();
        for target in looked_up {
            self.note(std::slice::from_ref(follower), target, &[None], None).await?;
            let id = note_id(&place, target, None);
            let found = self.client.mget(ALIAS, &[id], false, 1).await?;
            let Some(Version::At(seq_no, _)) = found.first().map(|found| found.version) else {
                continue;
            };
            // Those that stood before it: what they say is looked at with all rows.
            let query = json!({ "bool": { "filter": [
                { "term": { "target": place } },
                { "term": { "topic": target } },
                { "range": { "_seq_no": { "lt": seq_no } } },
            ] } });
            self.delete_notes(&query).await?;
        }
        Ok(true)
    }

    /// Deletes notes as they are found; one that is left anew meanwhile stays.
    async fn delete_notes(&self, query: &Json) -> Result<()> {
        let search = json!({
            "size": NOTES_READ,
            "seq_no_primary_term": true,
            "track_total_hits": false,
            "_source": false,
            "query": query,
            "sort": [{ "_seq_no": "asc" }],
        });
        let path = format!("/{ALIAS}/_search");
        loop {
            self.refresh().await?;
            let page: Page<Option<Box<RawValue>>> =
                self.client.search(&path, &search, "looking for notes to forget").await?;
            let hits = page.into_hits();
            let deletes = hits.iter().map(|hit| bulk::delete(&hit.id, hit.version()));
            let deleted = self.put(&deletes.collect::<Vec<_>>()).await?;
            if !deleted.iter().any(Option::is_some) {
                return Ok(());
            }
        }
    }

    /// Forgets all notes of a generation that is gone.
    pub(crate) async fn forget_notes(&self, follower: &Follower) -> Result<()> {
        self.delete_notes(&json!({ "term": { "target": follower.place() } })).await
    }

    /// Whether a generation has rows that are further behind what they show than is promised.
    pub(crate) async fn is_stale(&self, follower: &Follower, looked_up: &[&str]) -> Result<bool> {
        let place = follower.place();
        let ids: Vec<String> = looked_up.iter().map(|name| note_id(&place, name, None)).collect();
        let all = self.client.mget(ALIAS, &ids, false, NOTES_READ).await?;
        if all.iter().any(|found| found.version != Version::Absent) {
            return Ok(true);
        }
        self.refresh().await?;
        let (found, _) = self.find_notes(follower, 1).await?;
        Ok(found.first().is_some_and(|note| note.noted_at < now_millis() - STALE))
    }

    /// The position of a partition's place among the documents of the books.
    pub(crate) async fn version_of(&self, until: &Until) -> Result<Version> {
        let found = self.client.mget(ALIAS, std::slice::from_ref(&until.id), false, 1).await?;
        found
            .first()
            .map(|found| found.version)
            .ok_or_else(|| Error::retriable("no answer to a read"))
    }
}

impl NoteDoc {
    /// The same, up to another row.
    pub(crate) fn moved(&self, after: i64) -> Self {
        NoteDoc { after: Some(after), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::value::Value;

    use super::*;

    #[test]
    fn notes_of_different_things_are_different_documents() {
        let ids = [
            note_id("b#notes#1", "a", None),
            note_id("b#notes#1", "a", Some("1")),
            note_id("b#notes#1", "a", Some("null")),
            note_id("b#notes#2", "a", Some("1")),
            note_id("b#notes#1", "a1", Some("")),
        ];
        let all: std::collections::BTreeSet<&String> = ids.iter().collect();
        assert_eq!(all.len(), ids.len());
    }

    #[test]
    fn a_key_that_no_search_finds_is_noted_as_all_rows() {
        assert_eq!(noted(&Key::of(Value::Int(7))).as_deref(), Some("7"));
        assert_eq!(noted(&Key::of(Value::text(&"x".repeat(9_000)))), None);
    }
}
