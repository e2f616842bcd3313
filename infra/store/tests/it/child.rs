//! Tests run as processes of their own: to be killed, or to be measured.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

/// What a child puts before a line that is for its parent.
const TOLD: &str = "told: ";

/// Starts the ignored test of this name, which works in `dir`.
pub(crate) fn start(test: &str, dir: &Path) -> (Child, impl Iterator<Item = String>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", dir.display()).unwrap();
    let lines: Lines<BufReader<ChildStdout>> = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = lines.map_while(Result::ok).filter_map(|line| {
        let start = line.find(TOLD)? + TOLD.len();
        Some(line[start..].to_owned())
    });
    (child, told)
}

/// In the child: the directory to work in.
pub(crate) fn dir() -> PathBuf {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().into()
}

/// In the child: tells the parent.
pub(crate) fn tell(what: std::fmt::Arguments<'_>) {
    println!("{TOLD}{what}");
}
