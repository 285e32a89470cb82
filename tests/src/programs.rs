//! The server's own programs, run as the user that may run them.

use std::path::Path;
use std::process::{Command, Stdio};

/// An empty folder that belongs to the server's user.
pub(crate) fn install_folder(folder: &Path) {
    if is_root() {
        let folder = folder.display();
        run(
            Command::new("/bin/sh").args(["-c", &format!("install -d -m 700 -o postgres '{folder}'")]),
            "install -d",
        );
    }
}

/// Runs a shell command as the server's user: its programs refuse root.
///
/// # Panics
/// When the command fails.
pub(crate) fn as_server_user(command: &str) {
    let mut shell = if is_root() {
        let mut su = Command::new("su");
        su.args(["postgres", "-s", "/bin/sh"]);
        su
    } else {
        Command::new("/bin/sh")
    };
    run(shell.args(["-c", command]).current_dir("/"), command);
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

fn run(command: &mut Command, what: &str) {
    // output to nowhere: a server that inherits a pipe would keep it open for ever
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{status:?} of {what}"
    );
}
