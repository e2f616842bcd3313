//! The same population in SQLite, each column with an index, asked the same questions: what the bitmaps are measured
//! against. SQLite runs as a process of its own, `sqlite3`, with all data in memory.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{
    population::{Question, device},
    rows::{Asked, COLUMNS, listed, row},
};
use crate::Error;

/// Memory that SQLite may use for pages, in KiB: more than the benches need.
const CACHE_KIB: u32 = 8 << 20;

/// How often each question is asked; the quickest answer counts.
const ROUNDS: usize = 3;

/// Puts so many devices into a database in `dir` and asks each question.
///
/// # Errors
/// [`Error::Unavailable`] when there is no `sqlite3`, [`Error::Corrupt`] when its output is not understood.
pub async fn ask(dir: &Path, devices: u32, questions: &[Question]) -> Result<Vec<Asked>, Error> {
    let tables = ["devices", "tags", "interests"].map(|table| dir.join(format!("{table}.csv")));
    write(&tables, devices)?;
    let database = dir.join("devices.sqlite");
    run(&database, &load(&tables)).await?;
    let mut script = format!("PRAGMA cache_size = -{CACHE_KIB};\nPRAGMA temp_store = MEMORY;\n.timer on\n");
    for question in questions {
        for _ in 0..ROUNDS {
            script += &format!("SELECT count(*) FROM devices WHERE {};\n", question.sql);
            script += &format!("CREATE TEMP TABLE found AS SELECT device FROM devices WHERE {};\n", question.sql);
            script += ".timer off\nDROP TABLE found;\n.timer on\n";
        }
    }
    let told = run(&database, &script).await?;
    let lines: Vec<&str> = told.lines().collect();
    let asked = lines.chunks(3 * ROUNDS).map(asked).collect::<Option<Vec<_>>>();
    asked.filter(|asked| asked.len() == questions.len()).ok_or_else(|| Error::Corrupt(format!("sqlite3: {told}")))
}

/// A count, its time, and the time of writing the numbers; several times over.
fn asked(lines: &[&str]) -> Option<Asked> {
    let seconds = |line: &str| line.split_whitespace().nth(3)?.parse().ok().map(Duration::from_secs_f64);
    let least = |at: usize| lines.chunks(3).map(|round| seconds(round.get(at)?)).min_by_key(|t| t.unwrap_or_default());
    Some(Asked { count: lines.first()?.parse().ok()?, counting: least(1)??, selecting: least(2)?? })
}

fn load(tables: &[PathBuf; 3]) -> String {
    let [devices, tags, interests] = tables.each_ref().map(|table| table.display());
    let mut script = format!(
        ".output /dev/null\nPRAGMA journal_mode = OFF;\nPRAGMA synchronous = OFF;\nPRAGMA cache_size = -{CACHE_KIB};\n\
         CREATE TABLE devices (device INTEGER PRIMARY KEY, {});\n\
         CREATE TABLE tags (device INTEGER, tag TEXT, PRIMARY KEY (device, tag)) WITHOUT ROWID;\n\
         CREATE TABLE interests (device INTEGER, interest TEXT, PRIMARY KEY (device, interest)) WITHOUT ROWID;\n\
         .mode csv\n.import {devices} devices\n.import {tags} tags\n.import {interests} interests\n\
         CREATE INDEX tags_tag ON tags (tag, device);\nCREATE INDEX interests_interest ON interests (interest, device);\n",
        COLUMNS.join(", ")
    );
    for name in COLUMNS.iter().filter_map(|column| column.split(' ').next()) {
        script += &format!("CREATE INDEX devices_{name} ON devices ({name});\n");
    }
    script + "ANALYZE;\n"
}

fn write(tables: &[PathBuf; 3], count: u32) -> Result<(), Error> {
    let [devices, tags, interests] = tables.each_ref().map(File::create);
    let (mut devices, mut tags, mut interests) =
        (BufWriter::new(devices?), BufWriter::new(tags?), BufWriter::new(interests?));
    for device in (0..count).filter_map(|ordinal| device(ordinal, 0)) {
        let row = row(&device).ok_or_else(|| Error::Corrupt(format!("no row of {device:?}")))?;
        writeln!(devices, "{},{}", device.ordinal.0, row.join(","))?;
        for tag in &device.profile.tags {
            writeln!(tags, "{},{tag}", device.ordinal.0)?;
        }
        for interest in listed(&device, "interests") {
            writeln!(interests, "{},{interest}", device.ordinal.0)?;
        }
    }
    [devices, tags, interests].iter_mut().try_for_each(|file| Ok(file.flush()?))
}

async fn run(database: &Path, script: &str) -> Result<String, Error> {
    let mut sqlite = Command::new("sqlite3")
        .args(["-batch", "-bail"])
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Error::unavailable("sqlite", format!("cannot run sqlite3: {error}")))?;
    if let Some(mut input) = sqlite.stdin.take() {
        input.write_all(script.as_bytes()).await?;
    }
    let output = sqlite.wait_with_output().await?;
    if !output.status.success() {
        return Err(Error::Corrupt(format!("sqlite3 ended with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
