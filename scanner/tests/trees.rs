//! Real directory trees.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use media_assets_scanner::{scan, Found, Item, Options};

struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("media_assets_scanner_{}_{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("a directory");
        Tree(root)
    }

    fn file(&self, path: impl AsRef<Path>, content: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, content).expect("a file");
        path
    }

    /// Paths below the root, and what stands for a problem.
    fn names(&self, options: &Options) -> Vec<String> {
        scan(&self.0, options, &|| ())
            .expect("a tree")
            .map(|found| match found {
                Found::Item(item) => item.path[self.0.to_str().expect("utf-8").len() + 1..].to_owned(),
                Found::Problem(problem) => format!("! {}", problem.what),
            })
            .collect()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_come_in_path_order_with_what_their_names_say() {
    let tree = Tree::new("order");
    for name in [
        "b.MKV",
        "a/z.mp4",
        "a/B.mkv",
        "a/b.mkv",
        "notes.txt",
        "Show/Season 01/Show - S01E02 - Name.mkv",
        "noextension",
    ] {
        tree.file(name, "abc");
    }
    let file = fs::File::options()
        .write(true)
        .open(tree.0.join("a/z.mp4"))
        .expect("opens");
    file.set_modified(UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456))
        .expect("a time");
    assert_eq!(
        tree.names(&Options::default()),
        [
            "Show/Season 01/Show - S01E02 - Name.mkv",
            "a/B.mkv",
            "a/b.mkv",
            "a/z.mp4",
            "b.MKV"
        ]
    );
    let options = Options {
        hash: true,
        extensions: vec![".MP4".into()],
        ..Options::default()
    };
    let found: Vec<Found> = scan(&tree.0, &options, &|| ()).expect("a tree").collect();
    assert_eq!(
        found,
        [Found::Item(Item {
            path: tree.0.join("a/z.mp4").to_str().expect("utf-8").to_owned(),
            size: 3,
            mtime: Some(1_700_000_000_123_456),
            hash: Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into()),
            title: None,
            season: None,
            episode: None,
        })]
    );
}

#[test]
fn hidden_files_are_passed_over_and_a_hidden_root_is_fine() {
    let tree = Tree::new(".hidden");
    for name in ["a.mkv", ".b.mkv", ".cache/c.mkv", "d/.e/f.mkv"] {
        tree.file(name, "");
    }
    assert_eq!(tree.names(&Options::default()), ["a.mkv"]);
}

#[test]
fn names_that_are_not_utf_8_are_told() {
    let tree = Tree::new("latin1");
    tree.file("a.mkv", "");
    tree.file(OsStr::from_bytes(b"caf\xe9.mkv"), "");
    tree.file(OsStr::from_bytes(b"caf\xe9.txt"), "");
    assert_eq!(tree.names(&Options::default()), ["a.mkv", "! the name is not UTF-8"]);
}

#[test]
fn links_are_followed_when_asked_for_and_loops_end() {
    let tree = Tree::new("links");
    let target = tree.file("real/a.mkv", "");
    symlink(&target, tree.0.join("link.mkv")).expect("a link");
    symlink(tree.0.join("nowhere"), tree.0.join("broken.mkv")).expect("a link");
    symlink(&tree.0, tree.0.join("real/up")).expect("a link");
    assert_eq!(tree.names(&Options::default()), ["real/a.mkv"]);
    let follow = Options {
        follow_symlinks: true,
        ..Options::default()
    };
    let names = tree.names(&follow);
    assert!(names.contains(&"link.mkv".to_owned()), "{names:?}");
    assert_eq!(
        names.iter().filter(|name| name.starts_with('!')).count(),
        2,
        "{names:?}"
    );
}

#[test]
fn a_root_that_is_not_there_is_an_error() {
    assert!(scan(Path::new("/no/such/directory"), &Options::default(), &|| ()).is_err());
    let tree = Tree::new("file");
    let file = tree.file("a.mkv", "");
    assert!(scan(&file, &Options::default(), &|| ()).is_err());
}
