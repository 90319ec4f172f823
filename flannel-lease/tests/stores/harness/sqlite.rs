//! A lease file in a directory of its own.

use std::path::PathBuf;
use std::sync::Arc;

use flannel_lease::sqlite::SqliteStore;
use flannel_lease::{LeaseStore, Timing};
use rusqlite::{Connection, OptionalExtension, params};

use flannel_lease::conformance::Harness;

pub(crate) struct SqliteLab {
    dir: tempfile::TempDir,
}

impl SqliteLab {
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("leases.db")
    }

    pub(crate) fn connection(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(flannel_lease::conformance::TIMEOUT).unwrap();
        connection
    }
}

impl Harness for SqliteLab {
    const READABLE_WHILE_AWAY: bool = true;

    async fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    async fn open(&self, timing: Timing) -> Arc<dyn LeaseStore> {
        Arc::new(SqliteStore::open(&self.path(), timing).await.unwrap())
    }

    async fn put(&self, key: &str, json: &str) {
        let sql = "INSERT INTO lease (key, attributes) VALUES (?1, ?2)
                   ON CONFLICT (key) DO UPDATE SET attributes = excluded.attributes, expires_ms = NULL";
        self.connection().execute(sql, params![key, json]).unwrap();
    }

    async fn delete(&self, key: &str) {
        self.connection().execute("DELETE FROM lease WHERE key = ?1", [key]).unwrap();
    }

    async fn read(&self, key: &str) -> Option<String> {
        let sql = "SELECT attributes FROM lease WHERE key = ?1";
        self.connection().query_row(sql, [key], |row| row.get(0)).optional().unwrap()
    }

    async fn ends(&self, key: &str) -> bool {
        let sql = "SELECT expires_ms IS NOT NULL FROM lease WHERE key = ?1";
        self.connection().query_row(sql, [key], |row| row.get(0)).unwrap()
    }

    async fn wipe(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.path().into_os_string();
            path.push(suffix);
            std::fs::remove_file(path).unwrap();
        }
    }

    async fn away(&self, during: impl Future<Output = ()> + Send) {
        let connection = self.connection();
        connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
        during.await;
        connection.execute_batch("ROLLBACK").unwrap();
    }
}
