//! A group's committed offsets, and the lock that gives it to one worker.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::Commit;
use foldline_api::{Error, Result};
use serde::{Deserialize, Serialize};

/// One line of a group's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Offset {
    topic: String,
    partition: i32,
    offset: i64,
    #[serde(default)]
    metadata: String,
}

/// Where a group keeps its offsets.
#[derive(Clone, Debug)]
pub(crate) struct GroupFile {
    offsets: PathBuf,
    lock: PathBuf,
    group: String,
}

impl GroupFile {
    pub(crate) fn new(log: &Path, group: &str) -> Self {
        let folder = log.join(".groups");
        let name = file_name(group);
        GroupFile {
            offsets: folder.join(format!("{name}.json")),
            lock: folder.join(format!("{name}.lock")),
            group: group.to_owned(),
        }
    }

    /// Reads anew each time: someone may have edited or deleted the file, which is how a reset is made.
    pub(crate) fn read(&self) -> Result<Vec<Commit>> {
        let text = match fs::read(&self.offsets) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("read", &self.offsets, error)),
        };
        let offsets: Vec<Offset> = serde_json::from_slice(&text).map_err(|error| {
            Error::config(format!(
                "{} does not hold a group's offsets ({error}): mend it, or delete it and the sink's \
                 positions stand",
                self.offsets.display()
            ))
        })?;
        let commit = |offset: Offset| Commit {
            partition: TopicPartition::new(offset.topic, offset.partition),
            position: Position(offset.offset),
            metadata: offset.metadata,
        };
        Ok(offsets.into_iter().map(commit).collect())
    }

    /// Lays `commits` over what is there. The caller sees to it that no other writer runs.
    pub(crate) fn write(&self, commits: &[Commit]) -> Result<()> {
        let mut all: BTreeMap<TopicPartition, Commit> =
            self.read()?.into_iter().map(|commit| (commit.partition.clone(), commit)).collect();
        all.extend(commits.iter().map(|commit| (commit.partition.clone(), commit.clone())));
        let offset = |commit: Commit| Offset {
            topic: commit.partition.topic.to_string(),
            partition: commit.partition.partition,
            offset: commit.position.0,
            metadata: commit.metadata,
        };
        let offsets: Vec<Offset> = all.into_values().map(offset).collect();
        let mut text = serde_json::to_vec_pretty(&offsets).map_err(|error| {
            Error::config("a group's offsets cannot be written").with_source(error)
        })?;
        text.push(b'\n');
        replace(&self.offsets, &text)
    }

    /// Deletes the group's offsets; false where there are none. The caller holds its lock, whose file stays: who waits for it
    /// would else hold another one.
    pub(crate) fn delete(&self) -> Result<bool> {
        match fs::remove_file(&self.offsets) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io("delete", &self.offsets, error)),
        }
    }

    /// Takes the group for this process until the lock is dropped.
    ///
    /// # Errors
    /// Class Fenced where another worker has it, or another log of this one.
    pub(crate) fn lock(&self) -> Result<GroupLock> {
        make_folder(&self.lock)?;
        let mut options = OpenOptions::new();
        let open = options.read(true).write(true).create(true).truncate(false).open(&self.lock);
        let mut file = open.map_err(|error| io("open", &self.lock, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // The owner may be about to write its id: then the sentence names none.
                let _ = file.read_to_string(&mut owner);
                return Err(Error::fenced(format!(
                    "group {:?} of the log in {} belongs to another worker (process {}): a file log's \
                     group has one worker; stop that one, or use another group",
                    self.group,
                    self.lock.parent().and_then(Path::parent).unwrap_or(Path::new("")).display(),
                    if owner.trim().is_empty() { "unknown" } else { owner.trim() },
                )));
            }
            Err(TryLockError::Error(error)) => return Err(io("lock", &self.lock, error)),
        }
        let id = format!("{}\n", std::process::id());
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(id.as_bytes())
        };
        write(&mut file).map_err(|error| io("write", &self.lock, error))?;
        Ok(GroupLock(file))
    }
}

/// The group is this process' while this lives; the system frees it when the process dies.
#[derive(Debug)]
pub(crate) struct GroupLock(#[expect(dead_code, reason = "held, never read")] File);

/// A group's name as a file's: what a path could trip over is written as `%` and two hex digits.
fn file_name(group: &str) -> String {
    let mut name = String::new();
    for (at, byte) in group.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if plain && !(at == 0 && byte == b'.') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    name
}

/// Replaces a file whole: a reader sees the old or the new one.
fn replace(path: &Path, text: &[u8]) -> Result<()> {
    make_folder(path)?;
    let fresh = path.with_extension("json.tmp");
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(text)?;
        file.sync_data()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|error| io("write", path, error))
}

/// Makes the folder that a file stands in.
pub(crate) fn make_folder(file: &Path) -> Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|error| io("create", folder, error))
}

/// An error of the file system: a machine problem, whatever it is, since it may be mended while we wait.
pub(crate) fn io(verb: &str, path: &Path, error: std::io::Error) -> Error {
    Error::retriable(format!("cannot {verb} {}: {error}", path.display())).with_source(error)
}

/// The id in a small file, made once: whoever is first decides.
pub(crate) fn ensure_id(path: &Path) -> Result<String> {
    if let Some(id) = read_id(path)? {
        return Ok(id);
    }
    make_folder(path)?;
    let id = random_id();
    let fresh = path.with_extension(format!("{id}.tmp"));
    fs::write(&fresh, format!("{id}\n")).map_err(|error| io("write", &fresh, error))?;
    // A link fails where there is one already; a rename would take another's place.
    let linked = fs::hard_link(&fresh, path);
    let removed = fs::remove_file(&fresh);
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(io("write", path, error));
        }
        _ => removed.map_err(|error| io("remove", &fresh, error))?,
    }
    read_id(path)?.ok_or_else(|| Error::retriable(format!("{} holds no id", path.display())))
}

fn read_id(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("read", path, error)),
    }
}

/// 128 bits that the system drew: the hasher's keys are the standard library's way to them.
fn random_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    let word = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", word(), word())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(partition: i32, offset: i64) -> Commit {
        let metadata = "foldline/1 x 1".to_owned();
        Commit {
            partition: TopicPartition::new("t", partition),
            position: Position(offset),
            metadata,
        }
    }

    #[test]
    fn commits_are_laid_over_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = GroupFile::new(folder.path(), "a/b");
        assert!(file.read().unwrap().is_empty());
        file.write(&[commit(0, 1), commit(1, 2)]).unwrap();
        file.write(&[commit(1, 5)]).unwrap();
        assert_eq!(file.read().unwrap(), [commit(0, 1), commit(1, 5)]);
        fs::write(&file.offsets, "{}").unwrap();
        assert!(file.read().unwrap_err().to_string().contains("mend it"));
    }

    #[test]
    fn a_group_has_one_worker_and_the_other_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = GroupFile::new(folder.path(), "g");
        let held = file.lock().unwrap();
        let error = file.lock().unwrap_err();
        assert!(error.message().contains(&std::process::id().to_string()), "{error}");
        drop(held);
        file.lock().unwrap();
    }

    #[test]
    fn names_stay_in_their_folder_and_ids_stay_the_same() {
        assert_eq!(file_name("../é"), "%2E.%2F%C3%A9");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t/.topic-id");
        let id = ensure_id(&path).unwrap();
        assert_eq!((id.len(), ensure_id(&path).unwrap()), (32, id));
        assert_eq!(fs::read_dir(folder.path().join("t")).unwrap().count(), 1);
    }
}
