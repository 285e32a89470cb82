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
fn hidden_links_that_lead_nowhere_or_back_are_hidden_too() {
    let tree = Tree::new("hidden-links");
    let file = tree.file("a.mkv", "");
    let root = file.parent().expect("the file is in the tree");
    std::os::unix::fs::symlink("nowhere", root.join(".#a.mkv")).expect("a link");
    std::os::unix::fs::symlink("..", root.join(".up")).expect("a link");
    let options = Options {
        follow_symlinks: true,
        ..Options::default()
    };
    assert_eq!(tree.names(&options), ["a.mkv"]);
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
fn paths_come_as_bytes_sort_them() {
    let tree = Tree::new("bytes");
    for name in [
        "Show/a.mkv",
        "Show (2003)/a.mkv",
        "Show - Extras/a.mkv",
        "Show.mkv",
        "Show0/a.mkv",
        "Show/b/c.mkv",
        "Show/b.mkv",
        "é/a.mkv",
        "z.mkv",
    ] {
        tree.file(name, "");
    }
    symlink(tree.0.join("Show0"), tree.0.join("Show,linked")).expect("a link");
    for follow_symlinks in [false, true] {
        let options = Options {
            follow_symlinks,
            ..Options::default()
        };
        let names = tree.names(&options);
        let mut sorted = names.clone();
        sorted.sort_unstable();
        assert_eq!(names, sorted);
        assert_eq!(names.len(), if follow_symlinks { 10 } else { 9 });
    }
}

#[test]
fn links_devices_and_odd_names_are_what_they_are() {
    let tree = Tree::new("odd");
    let long = format!("{}.mkv", "x".repeat(250));
    for name in [
        "new\nline.mkv",
        "tab\t.mkv",
        " .mkv",
        "#1?x=%20.MKV",
        "\u{feff}.mkv",
        long.as_str(),
    ] {
        tree.file(name, "");
    }
    // a directory and a socket with the name of a file, a directory called as hidden ones are not
    fs::create_dir(tree.0.join("directory.mkv")).expect("a directory");
    std::os::unix::net::UnixListener::bind(tree.0.join("socket.mkv")).expect("a socket");
    fs::create_dir(tree.0.join("...")).expect("a directory");
    tree.file(".../a.mkv", "");
    symlink("/", tree.0.join("root")).expect("a link");
    symlink(tree.0.join("ring"), tree.0.join("ring")).expect("a link");
    assert_eq!(
        tree.names(&Options::default()).len(),
        6,
        "{:?}",
        tree.names(&Options::default())
    );
    // a file that goes while it is looked at is told, and the walk goes on
    let gone = tree.0.join("tab\t.mkv");
    let once = std::cell::Cell::new(false);
    let options = Options {
        hash: true,
        ..Options::default()
    };
    let remove = || {
        if !once.replace(true) {
            fs::remove_file(&gone).expect("removed");
        }
    };
    let found: Vec<Found> = scan(&tree.0, &options, &remove).expect("a tree").collect();
    let problems = found.iter().filter(|found| matches!(found, Found::Problem(_))).count();
    assert_eq!((found.len() - problems, problems <= 1), (5, true), "{found:?}");
}

/// Memory of this process that is not files, in kB.
fn private_memory() -> i64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok())
        .expect("a figure")
}

#[test]
fn a_hundred_thousand_files_in_one_directory_take_bounded_memory() {
    let shared = Path::new("/dev/shm");
    let base = if shared.is_dir() {
        shared.to_owned()
    } else {
        std::env::temp_dir()
    };
    let tree = Tree(base.join(format!("media_assets_scanner_{}_many", std::process::id())));
    fs::create_dir_all(&tree.0).expect("a directory");
    for number in 0..100_000 {
        fs::File::create(
            tree.0
                .join(format!("Show - S01E{number:06} - A name of a usual length.MKV")),
        )
        .expect("a file");
    }
    let before = private_memory();
    let (mut files, mut most, mut last) = (0, 0, String::new());
    for found in scan(&tree.0, &Options::default(), &|| ()).expect("a tree") {
        let Found::Item(item) = found else { panic!("{found:?}") };
        assert!(item.path > last, "in path order");
        last = item.path;
        files += 1;
        if files % 10_000 == 1 {
            most = most.max(private_memory() - before);
        }
    }
    assert_eq!(files, 100_000);
    // what is held is one directory's names, not its files
    assert!(most < 64 << 10, "{most} kB");
}

#[test]
fn a_root_that_is_not_there_is_an_error() {
    assert!(scan(Path::new("/no/such/directory"), &Options::default(), &|| ()).is_err());
    let tree = Tree::new("file");
    let file = tree.file("a.mkv", "");
    assert!(scan(&file, &Options::default(), &|| ()).is_err());
}
