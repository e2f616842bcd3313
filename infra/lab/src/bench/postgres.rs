//! The same population in PostgreSQL, each column with an index and the tags in an inverted one (GIN), asked the same
//! questions. The server is a private one on a folder and a socket of its own, and goes with the bench.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{
    population::{Question, device},
    rows::{Asked, COLUMNS, listed, row},
};
use crate::Error;

/// Where Debian has each version's programs.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user and group `nobody`: the server refuses to run as root.
const NOBODY: u32 = 65_534;
/// What the server may take: all data stays in memory, sets of rows stay exact, one core works, and nothing waits for a
/// disk.
const SETTINGS: [&str; 9] = [
    "listen_addresses=",
    "shared_buffers=4GB",
    "work_mem=256MB",
    "maintenance_work_mem=1GB",
    "max_parallel_workers_per_gather=0",
    "fsync=off",
    "full_page_writes=off",
    "max_wal_size=8GB",
    "autovacuum=off",
];
/// How often each question is asked; the quickest answer counts.
const ROUNDS: usize = 3;
/// How long the server may take to be ready.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A running server; killed when dropped.
struct Server {
    bin: PathBuf,
    dir: TempDir,
    _process: Child,
}

/// Puts so many devices into a database of its own and asks each question.
///
/// # Errors
/// [`Error::Unavailable`] when PostgreSQL is not installed or does not start, [`Error::Corrupt`] when its output is not
/// understood.
pub async fn ask(devices: u32, questions: &[Question]) -> Result<Vec<Asked>, Error> {
    let server = Server::start().await?;
    let rows = server.dir.path().join("rows.csv");
    write(&rows, devices)?;
    server.run(&load(&rows)).await?;
    let mut script = String::from("\\timing on\n");
    for question in questions {
        for _ in 0..ROUNDS {
            script += &format!("SELECT count(*) FROM devices WHERE {};\n", question.postgres);
            script += &format!("CREATE TEMP TABLE found AS SELECT device FROM devices WHERE {};\n", question.postgres);
            script += "\\timing off\nDROP TABLE found;\n\\timing on\n";
        }
    }
    let told = server.run(&script).await?;
    let lines: Vec<&str> = told.lines().filter(|line| !line.starts_with("Timing is")).collect();
    let asked = lines.chunks(3 * ROUNDS).map(asked).collect::<Option<Vec<_>>>();
    asked.filter(|asked| asked.len() == questions.len()).ok_or_else(|| Error::Corrupt(format!("psql: {told}")))
}

/// A count, its time, and the time of writing the numbers; several times over.
fn asked(lines: &[&str]) -> Option<Asked> {
    let least = |at: usize| lines.chunks(3).map(|round| millis(round.get(at)?)).min_by_key(|t| t.unwrap_or_default());
    Some(Asked { count: lines.first()?.parse().ok()?, counting: least(1)??, selecting: least(2)?? })
}

/// `Time: 1234.567 ms (00:01.235)`.
fn millis(line: &str) -> Option<Duration> {
    let millis: f64 = line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok()?;
    Some(Duration::from_secs_f64(millis / 1e3))
}

fn load(rows: &Path) -> String {
    let columns = COLUMNS.map(|column| column.replace("INTEGER", "BIGINT").replace("REAL", "DOUBLE PRECISION"));
    let mut script = format!(
        "CREATE TABLE devices (device BIGINT PRIMARY KEY, {}, tags TEXT[], interests TEXT[]);\n\\copy devices FROM '{}' CSV\n",
        columns.join(", "),
        rows.display()
    );
    for name in COLUMNS.iter().filter_map(|column| column.split(' ').next()) {
        script += &format!("CREATE INDEX ON devices ({name});\n");
    }
    script
        + "CREATE INDEX ON devices USING gin (tags);\nCREATE INDEX ON devices USING gin (interests);\n\
              VACUUM (FREEZE, ANALYZE) devices;\n"
}

fn write(place: &Path, count: u32) -> Result<(), Error> {
    let mut rows = BufWriter::new(File::create(place)?);
    for device in (0..count).filter_map(|ordinal| device(ordinal, 0)) {
        let row = row(&device).ok_or_else(|| Error::Corrupt(format!("no row of {device:?}")))?;
        let tags: Vec<&str> = device.profile.tags.iter().map(String::as_str).collect();
        let interests: Vec<&str> = listed(&device, "interests").collect();
        let [tags, interests] = [tags, interests].map(|texts| format!("\"{{{}}}\"", texts.join(",")));
        writeln!(rows, "{},{},{tags},{interests}", device.ordinal.0, row.join(","))?;
    }
    Ok(rows.flush()?)
}

/// The programs of the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).ok()?.filter_map(|version| Some(version.ok()?.path().join("bin")));
    versions.filter(|bin| bin.join("initdb").exists() && bin.join("psql").exists()).max()
}

impl Server {
    async fn start() -> Result<Self, Error> {
        let none = || Error::unavailable("postgresql", format!("no initdb and psql in {VERSIONS}/*/bin"));
        let bin = programs().ok_or_else(none)?;
        let dir = tempfile::tempdir()?;
        let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        if root {
            chown(dir.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let unprivileged = |program: &str| {
            let mut command = Command::new(bin.join(program));
            command.current_dir(dir.path()).stdin(Stdio::null()).kill_on_drop(true);
            if root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command
        };
        let data = dir.path().join("data");
        let mut init = unprivileged("initdb");
        init.args(["--locale=C", "--encoding=UTF8", "--auth=trust", "--username=bench", "--no-sync", "-D"]).arg(&data);
        done("initdb", init.output().await?)?;
        let log = File::create(dir.path().join("log"))?;
        let mut serve = unprivileged("postgres");
        serve.arg("-D").arg(&data).arg("-k").arg(dir.path()).stdout(Stdio::null()).stderr(log);
        SETTINGS.iter().for_each(|setting| _ = serve.args(["-c", setting]));
        let server = Self { _process: serve.spawn()?, bin, dir };
        let deadline = Instant::now() + START_PATIENCE;
        while let Err(error) = server.run("SELECT 1;\n").await {
            if Instant::now() > deadline {
                return Err(Error::unavailable("postgresql", format!("it does not start: {error}")));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(server)
    }

    /// What the script prints.
    async fn run(&self, script: &str) -> Result<String, Error> {
        let mut psql = Command::new(self.bin.join("psql"))
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "bench", "-d", "postgres", "-h"])
            .arg(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = psql.stdin.take() {
            input.write_all(script.as_bytes()).await?;
        }
        done("psql", psql.wait_with_output().await?)
    }
}

/// What a program printed, when it ended well.
fn done(program: &str, output: Output) -> Result<String, Error> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Corrupt(format!("{program} ended with {}: {said}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_psql_prints_them() {
        assert_eq!(millis("Time: 1.500 ms"), Some(Duration::from_micros(1_500)));
        assert_eq!(millis("Time: 61234.500 ms (01:01.235)"), Some(Duration::from_micros(61_234_500)));
        assert_eq!(millis("7"), None);
        let lines = ["7", "Time: 3.000 ms", "Time: 9.000 ms", "7", "Time: 2.000 ms", "Time: 10.000 ms"];
        let asked = asked(&lines).unwrap();
        assert_eq!(
            (asked.count, asked.counting, asked.selecting),
            (7, Duration::from_millis(2), Duration::from_millis(9))
        );
    }
}
