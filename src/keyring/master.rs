//! Master keys: how they are written down, read and made.
//!
//! A keyring's text, whether in a file or in the environment, is either one bare key,
//!
//! ```text
//! 3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
//! ```
//!
//! or several, each with its part. Entries stand on lines of their own or between commas; `#` begins a comment.
//!
//! ```text
//! current: <base64>     wraps every new data key; exactly one
//! former:  <base64>     only unwraps; any number
//! index:   <base64>     the index key is made from it; exactly one
//! ```
//!
//! To rotate: write the new key as `current`, the old one as `former`, and keep `index` at the key that was first of
//! all. Students, contacts and numbers are found by hashes under the index key; with another index key nobody would be
//! found: open alerts would not be joined and consent would not be seen. That is why the index key is never guessed as
//! soon as there is more than one key, and why [`MasterKeys::index_id`] should be compared with the one a database was
//! begun with.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER};
use zeroize::Zeroizing;

use super::{KEY_BYTES, Secret, derive};
use crate::ports::{Entropy, random};

/// More than any sensible number of keys needs, in bytes.
const FILE_MAX: u64 = 16 * 1024;

/// Why there are no master keys. Never carries key material.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The file cannot be read.
    #[error("the key file {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("the key file {} cannot be made", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is such a file, and a key file is never overwritten: what it sealed would be lost.
    #[error("the key file {} exists already and is never overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read the file.
    #[error("the key file {} can be read by others (mode {mode:03o}); run chmod 600 on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a regular file, or larger than a key file can be.
    #[error("{} is not a key file", path.display())]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
    },
    /// One entry is wrong.
    #[error("master key entry {entry}: {rule}")]
    Entry {
        /// Which, counted from 1.
        entry: usize,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The entries do not fit together.
    #[error("master keys: {rule}")]
    Set {
        /// The rule that they break.
        rule: &'static str,
    },
}

/// One master key: its id, and the key made from it that wraps data keys.
pub(super) struct MasterKey {
    id: String,
    wrapping: Secret,
    index: Secret,
}

impl MasterKey {
    fn new(secret: &Secret) -> Self {
        // Keys for different work are made apart, so that none of them says anything about another or about the master.
        let id = derive(secret, "v1/master/id");
        Self {
            id: HEXLOWER.encode(&id[..4]),
            wrapping: derive(secret, "v1/master/wrap"),
            index: derive(secret, "v1/master/index"),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn wrapping_key(&self) -> &Secret {
        &self.wrapping
    }
}

/// The current master key, former ones, and the index key. Zeroed when dropped; `Debug` shows ids only.
pub struct MasterKeys {
    current: MasterKey,
    former: Vec<MasterKey>,
    index: Secret,
    index_id: String,
}

impl MasterKeys {
    /// Reads a keyring's text (see the module): from the environment, or a file's content.
    ///
    /// # Errors
    /// [`MasterKeyError::Entry`] and [`MasterKeyError::Set`].
    pub fn from_text(text: &str) -> Result<Self, MasterKeyError> {
        let entries = entries(text)?;
        let current = only(&entries, Part::Current)?;
        let index = only(&entries, Part::Index)?;
        let former: Vec<MasterKey> =
            entries.iter().filter(|entry| entry.part == Part::Former).map(|entry| MasterKey::new(&entry.key)).collect();
        let (current, index) = match (current, index) {
            (Some(current), Some(index)) => (MasterKey::new(&current.key), MasterKey::new(&index.key)),
            (Some(current), None) if former.is_empty() && current.bare => {
                (MasterKey::new(&current.key), MasterKey::new(&current.key))
            }
            (Some(_), None) => {
                return Err(MasterKeyError::Set { rule: "name the `index` key: the one that was first of all" });
            }
            (None, _) => return Err(MasterKeyError::Set { rule: "one key must be the `current` one" }),
        };
        let mut ids: Vec<&str> = former.iter().map(MasterKey::id).chain([current.id()]).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(MasterKeyError::Set { rule: "two of the keys that wrap are the same or share an id" });
        }
        Ok(Self { current, former, index: index.index, index_id: index.id })
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// Any but [`MasterKeyError::Create`] and [`MasterKeyError::Exists`]. On Unix a file that group or others may read,
    /// write or run is refused.
    pub fn from_file(path: &Path) -> Result<Self, MasterKeyError> {
        let failed = |source| MasterKeyError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // Asked of the open file, not of the path: what is checked is what is read.
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() > FILE_MAX {
            return Err(MasterKeyError::NotAKeyFile { path: path.to_owned() });
        }
        refuse_exposed(path, &metadata)?;
        let mut text = Zeroizing::new(String::with_capacity(FILE_MAX as usize));
        file.take(FILE_MAX).read_to_string(&mut text).map_err(failed)?;
        Self::from_text(&text)
    }

    /// Makes a file of mode 0600 with one fresh key, and reads it back. Flushed to disk before this returns: nothing may
    /// be sealed under a key that a power cut takes away.
    ///
    /// # Errors
    /// [`MasterKeyError::Exists`] if there is such a file (which stays as it is); otherwise as [`Self::from_file`], and
    /// [`MasterKeyError::Create`].
    pub fn create_file(path: &Path, entropy: &dyn Entropy) -> Result<Self, MasterKeyError> {
        let failed = |source: io::Error| {
            if source.kind() == io::ErrorKind::AlreadyExists {
                MasterKeyError::Exists { path: path.to_owned() }
            } else {
                MasterKeyError::Create { path: path.to_owned(), source }
            }
        };
        let key = Secret::new(random(entropy));
        let text = Zeroizing::new(format!("{}\n", BASE64.encode(key.as_slice())));
        let mut file = create_new(path).map_err(failed)?;
        if let Err(source) = write_through(&mut file, path, text.as_bytes()) {
            // Half a key is of no use to anybody, and would stand in the way of the next try.
            let _ = std::fs::remove_file(path);
            return Err(MasterKeyError::Create { path: path.to_owned(), source });
        }
        Self::from_file(path)
    }

    /// The id of the key that wraps new data keys: 8 hexadecimal digits that say nothing about the key.
    pub fn current_id(&self) -> &str {
        &self.current.id
    }

    /// The ids of the keys that only unwrap.
    pub fn former_ids(&self) -> impl Iterator<Item = &str> {
        self.former.iter().map(MasterKey::id)
    }

    /// The id of the key that the index key is made from. With another one, no student or contact would be found.
    pub fn index_id(&self) -> &str {
        &self.index_id
    }

    pub(super) fn current(&self) -> &MasterKey {
        &self.current
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&MasterKey> {
        std::iter::once(&self.current).chain(&self.former).find(|master| master.id == id)
    }

    pub(super) fn index_key(&self) -> &Secret {
        &self.index
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKeys")
            .field("current", &self.current.id)
            .field("former", &self.former_ids().collect::<Vec<_>>())
            .field("index", &self.index_id)
            .finish_non_exhaustive()
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The text

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Current,
    Former,
    Index,
}

struct Entry {
    part: Part,
    bare: bool,
    key: Secret,
}

fn entries(text: &str) -> Result<Vec<Entry>, MasterKeyError> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let line = line.split_once('#').map_or(line, |(before, _)| before);
        for text in line.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let entry = entry(text).map_err(|rule| MasterKeyError::Entry { entry: entries.len() + 1, rule })?;
            entries.push(entry);
        }
    }
    if entries.len() > 1 && entries.iter().any(|entry| entry.bare) {
        return Err(MasterKeyError::Set { rule: "of several keys, each must be `current:`, `former:` or `index:`" });
    }
    Ok(entries)
}

fn entry(text: &str) -> Result<Entry, &'static str> {
    let (part, bare, key) = match text.split_once(':') {
        None => (Part::Current, true, text),
        Some((part, key)) => match part.trim() {
            "current" => (Part::Current, false, key),
            "former" => (Part::Former, false, key),
            "index" => (Part::Index, false, key),
            _ => return Err("a key is `current:`, `former:` or `index:`"),
        },
    };
    Ok(Entry { part, bare, key: key_bytes(key.trim())? })
}

/// Reads 32 bytes of base64, in either alphabet, with or without padding.
fn key_bytes(text: &str) -> Result<Secret, &'static str> {
    const RULE: &str = "must be 32 bytes in base64, as `openssl rand -base64 32` prints them";
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    plain.extend(text.trim_end_matches('=').chars().map(|symbol| match symbol {
        '-' => '+',
        '_' => '/',
        other => other,
    }));
    let bytes = Zeroizing::new(BASE64_NOPAD.decode(plain.as_bytes()).map_err(|_| RULE)?);
    let mut key = Secret::default();
    if bytes.len() != KEY_BYTES {
        return Err(RULE);
    }
    key.copy_from_slice(&bytes);
    if key.iter().all(|byte| *byte == key[0]) {
        return Err("must be drawn at random; this one is a placeholder");
    }
    Ok(key)
}

fn only(entries: &[Entry], part: Part) -> Result<Option<&Entry>, MasterKeyError> {
    let mut found = entries.iter().filter(|entry| entry.part == part);
    let first = found.next();
    if found.next().is_some() {
        return Err(MasterKeyError::Set { rule: "there can be only one `current` and one `index` key" });
    }
    Ok(first)
}

// ---------------------------------------------------------------------------------------------------------------------
// The file

#[cfg(unix)]
fn refuse_exposed(path: &Path, metadata: &std::fs::Metadata) -> Result<(), MasterKeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(MasterKeyError::Exposed { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path, _: &std::fs::Metadata) -> Result<(), MasterKeyError> {
    Ok(())
}

fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

fn write_through(file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()?;
    // The name is the folder's content, and is lost in a power cut unless the folder is flushed too.
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    fn key(byte: u8) -> String {
        let mut bytes = [byte; 32];
        bytes[0] = byte.wrapping_add(1);
        BASE64.encode(&bytes)
    }

    #[test]
    fn one_bare_key_is_current_and_makes_the_index_key() {
        let keys = MasterKeys::from_text(&key(1)).unwrap();
        assert_eq!(keys.current_id(), keys.index_id());
        assert_eq!(keys.former_ids().count(), 0);
    }

    #[test]
    fn the_same_key_reads_the_same_in_every_spelling_of_base64() {
        let bytes = [0xfbu8, 0xff].repeat(16);
        let id = |text: String| MasterKeys::from_text(&text).unwrap().current_id().to_owned();
        let standard = id(BASE64.encode(&bytes));
        assert_eq!(standard, id(BASE64_NOPAD.encode(&bytes)));
        assert_eq!(standard, id(data_encoding::BASE64URL.encode(&bytes)));
        assert_eq!(standard, id(format!(" {}\n", data_encoding::BASE64URL_NOPAD.encode(&bytes))));
    }

    #[test]
    fn several_keys_stand_on_lines_or_between_commas() {
        let lines = format!("# ours\ncurrent: {}\nformer: {} # 2025\n\nindex: {}\n", key(2), key(1), key(1));
        let commas = format!("index:{},former:{},current:{}", key(1), key(1), key(2));
        for text in [lines, commas] {
            let keys = MasterKeys::from_text(&text).unwrap();
            assert_eq!(keys.former_ids().collect::<Vec<_>>(), [keys.index_id()]);
            assert_ne!(keys.current_id(), keys.index_id());
        }
    }

    #[test]
    fn the_index_key_is_never_guessed_among_several() {
        for text in [
            format!("current:{},former:{}", key(2), key(1)),
            format!("current:{}", key(2)),
            format!("{},{}", key(2), key(1)),
        ] {
            assert!(matches!(MasterKeys::from_text(&text), Err(MasterKeyError::Set { .. })), "{text}");
        }
    }

    #[test]
    fn doubled_missing_and_repeated_keys_are_refused() {
        let (a, b) = (key(1), key(2));
        for text in [
            String::new(),
            "# nothing\n".to_owned(),
            format!("index:{a}"),
            format!("former:{a},index:{a}"),
            format!("current:{a},current:{b},index:{a}"),
            format!("current:{a},index:{a},index:{b}"),
            format!("current:{a},former:{a},index:{a}"),
            format!("current:{a},former:{b},former:{b},index:{b}"),
        ] {
            assert!(matches!(MasterKeys::from_text(&text), Err(MasterKeyError::Set { .. })), "{text}");
        }
    }

    #[test]
    fn an_entry_that_is_no_key_is_named_and_not_repeated() {
        let secretive = "c2VjcmV0LXNlY3JldA==";
        for text in [secretive.to_owned(), BASE64.encode(&[7; 32]), format!("old:{}", key(1)), "%".repeat(43)] {
            let error = MasterKeys::from_text(&text).unwrap_err();
            assert!(matches!(error, MasterKeyError::Entry { entry: 1, .. }), "{text}");
            assert!(!format!("{error} {error:?}").contains(&text));
        }
    }

    #[test]
    fn neither_ids_nor_debug_show_a_key() {
        let text = format!("current:{},former:{},index:{}", key(2), key(1), key(1));
        let keys = MasterKeys::from_text(&text).unwrap();
        let shown = format!("{keys:?}");
        for byte in [1u8, 2] {
            let raw = BASE64.decode(key(byte).as_bytes()).unwrap();
            assert!(!shown.contains(&HEXLOWER.encode(&raw[..4])));
            assert!(!shown.contains(&key(byte)));
        }
        assert_eq!(keys.current_id().len(), 8);
    }

    #[test]
    fn a_file_is_made_once_for_the_owner_alone_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let made = MasterKeys::create_file(&path, &SeededEntropy::new(1)).unwrap();
        let content = std::fs::read_to_string(&path).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let again = MasterKeys::create_file(&path, &SeededEntropy::new(2));
        assert!(matches!(again, Err(MasterKeyError::Exists { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        assert_eq!(MasterKeys::from_file(&path).unwrap().current_id(), made.current_id());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_touch_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        MasterKeys::create_file(&path, &SeededEntropy::new(1)).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o644, 0o660, 0o777] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let refused = MasterKeys::from_file(&path);
            assert!(matches!(refused, Err(MasterKeyError::Exposed { mode: found, .. }) if found == mode));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        assert!(MasterKeys::from_file(&path).is_ok());
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = MasterKeys::from_file(&folder.path().join("none"));
        assert!(matches!(missing, Err(MasterKeyError::Read { .. })));
        let directory = MasterKeys::from_file(folder.path());
        assert!(matches!(directory, Err(MasterKeyError::NotAKeyFile { .. })));
        let path = folder.path().join("big");
        create_new(&path).unwrap().write_all(&vec![b'#'; FILE_MAX as usize + 1]).unwrap();
        assert!(matches!(MasterKeys::from_file(&path), Err(MasterKeyError::NotAKeyFile { .. })));
        let nowhere = MasterKeys::create_file(&folder.path().join("no/such"), &SeededEntropy::new(1));
        assert!(matches!(nowhere, Err(MasterKeyError::Create { .. })));
    }
}
