//! A directory tree as items of an ingest.
//!
//! Files come in the order of their paths, one at a time; what cannot be read is told beside them, so that whoever
//! takes the list knows that it is not complete.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use media_assets_core::jobs::collection_ingest::{has_extension, read_file_name, COMMON_EXTENSIONS};
use sha2::{Digest, Sha256};
use walkdir::{DirEntry, WalkDir};

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Extensions in any case, with or without a dot.
    pub extensions: Vec<String>,
    /// Read every file and give its SHA-256.
    pub hash: bool,
    /// Follow symbolic links; a loop is told as a problem.
    pub follow_symlinks: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            extensions: COMMON_EXTENSIONS
                .iter()
                .map(|extension| (*extension).to_owned())
                .collect(),
            hash: false,
            follow_symlinks: false,
        }
    }
}

/// One media file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub path: String,
    /// Bytes.
    pub size: i64,
    /// Microseconds since 1970; `None` where the file system has none, or one out of range.
    pub mtime: Option<i64>,
    /// SHA-256 as 64 hexadecimal digits, where asked for.
    pub hash: Option<String>,
    pub title: Option<String>,
    pub season: Option<i32>,
    pub episode: Option<i32>,
}

/// What could not be taken into the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path; what is not UTF-8 of it is replaced.
    pub path: String,
    pub what: String,
}

/// What the walk comes upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Item(Item),
    Problem(Problem),
}

/// Walks the tree below `root`. `between` is called between files and while a file is read; what it panics with goes
/// through.
///
/// # Errors
/// When `root` is not there, is no directory, or cannot be read.
pub fn scan<'s>(
    root: &Path,
    options: &'s Options,
    between: &'s dyn Fn(),
) -> io::Result<impl Iterator<Item = Found> + 's> {
    // An error here is the caller's; below it is one item's.
    std::fs::read_dir(root)?;
    let follows = options.follow_symlinks;
    let walk = WalkDir::new(root)
        .follow_links(follows)
        .sort_by(move |left, right| path_bytes(left, follows).cmp(path_bytes(right, follows)))
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry));
    Ok(walk.filter_map(move |entry| {
        between();
        match entry {
            Ok(entry) => found(&entry, options, between),
            // The filter above sees no entry that cannot be looked at.
            Err(error) if error.depth() > 0 && error.path().and_then(Path::file_name).is_some_and(is_hidden_name) => {
                None
            }
            Err(error) => Some(Found::Problem(Problem {
                path: lossy(error.path().unwrap_or(Path::new(""))),
                what: match error.loop_ancestor() {
                    Some(_) => "a symbolic link leads back to a directory above it".to_owned(),
                    None => error.io_error().map_or_else(|| error.to_string(), io::Error::to_string),
                },
            })),
        }
    }))
}

/// What stands in the path of everything in `entry`: with the slash behind a directory, names sort as whole paths do, byte
/// by byte (`Show (2003)/a` is before `Show/a`).
fn path_bytes(entry: &DirEntry, follows: bool) -> impl Iterator<Item = u8> + '_ {
    let kind = entry.file_type();
    let is_directory = kind.is_dir() || (follows && kind.is_symlink() && entry.path().is_dir());
    let name = entry.file_name().as_encoded_bytes().iter().copied();
    name.chain(is_directory.then_some(b'/'))
}

fn is_hidden(entry: &DirEntry) -> bool {
    is_hidden_name(entry.file_name())
}

fn is_hidden_name(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn lossy(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn found(entry: &DirEntry, options: &Options, between: &dyn Fn()) -> Option<Found> {
    if !entry.file_type().is_file() || !has_extension(&entry.file_name().to_string_lossy(), &options.extensions) {
        return None;
    }
    let problem = |what: String| {
        Some(Found::Problem(Problem {
            path: lossy(entry.path()),
            what,
        }))
    };
    let Some(path) = entry.path().to_str() else {
        return problem("the name is not UTF-8".to_owned());
    };
    match read(path, entry, options, between) {
        Ok(item) => Some(Found::Item(item)),
        Err(error) => problem(error.to_string()),
    }
}

fn read(path: &str, entry: &DirEntry, options: &Options, between: &dyn Fn()) -> io::Result<Item> {
    let about = entry.metadata()?;
    let hash = if options.hash {
        Some(hash_of(&PathBuf::from(path), between)?)
    } else {
        None
    };
    let name = read_file_name(path);
    Ok(Item {
        path: path.to_owned(),
        size: i64::try_from(about.len()).unwrap_or(i64::MAX),
        mtime: about
            .modified()
            .ok()
            .and_then(microseconds)
            .filter(|time| *time >= EARLIEST),
        hash,
        title: name.title,
        season: name.season,
        episode: name.episode,
    })
}

/// The first moment that a database's `timestamptz` holds, in microseconds: 4714-11-24 BC.
const EARLIEST: i64 = -210_866_803_200_000_000;

fn microseconds(time: SystemTime) -> Option<i64> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).ok(),
        // Before 1970: down to the microsecond before, as for all others.
        Err(before) => i64::try_from(before.duration().as_nanos().div_ceil(1000))
            .ok()
            .map(|time| -time),
    }
}

fn hash_of(path: &Path, between: &dyn Fn()) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        between();
        let bytes = file.read(&mut buffer)?;
        if bytes == 0 {
            return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hasher.update(&buffer[..bytes]);
    }
}
