//! The lease file: every statement, each in a transaction of its own. Blocking.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use super::error::{DAMAGED, failed, unusable};
use crate::allocate::{ChoiceError, choose, identity_is_free};
use crate::codec::cut;
use crate::{
    Lease, LeaseAttributes, LeaseEvent, LeaseKey, LeaseLost, LeaseRequest, StoreError, StoreErrorKind, Timing,
};

/// `PRAGMA application_id`: "flan", so that another program's file is never mistaken for ours.
const APPLICATION_ID: i32 = 0x666c_616e;

/// `PRAGMA user_version` of [`SCHEMA`].
const VERSION: i32 = 1;

const SCHEMA: &str = include_str!("schema.sql");

/// So that finding expired leases at each change does not read every lease. Not in [`SCHEMA`], as files
/// made before it lack it.
const EXPIRY: &str = "CREATE INDEX IF NOT EXISTS lease_expiry ON lease (expires_ms)";

const ENDED: &str = "SELECT 1 FROM lease WHERE expires_ms <= ?1 LIMIT 1";
const CHANGED: &str = "SELECT key, attributes, expires_ms FROM lease WHERE revision > ?1";
const REMOVED: &str = "SELECT key FROM removed WHERE revision > ?1";

/// Longest time one call waits for another process's transaction. They take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// An open lease file.
#[derive(Debug)]
pub(super) struct Db {
    path: Arc<Path>,
    connection: Connection,
    /// Device and inode, to detect that the path leads to another file.
    identity: (u64, u64),
}

/// A place in the file's history.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Cursor {
    store: i64,
    revision: i64,
}

/// What differs from an earlier [`Cursor`], or, if `whole`, everything.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) cursor: Cursor,
    pub(super) whole: bool,
    /// Leases that are there, [`LeaseEvent::Malformed`] ones too.
    pub(super) present: Vec<LeaseEvent>,
    pub(super) removed: Vec<LeaseKey>,
    /// Rows whose key is none: their key, and why.
    pub(super) malformed: Vec<(String, String)>,
}

impl Db {
    /// Opens the file, making it if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let fail = |problem| unusable("open lease file", path, problem);
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Err(fail("it is a directory; name a file in it")),
            _ if path.parent().is_some_and(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()) => {
                return Err(fail("its directory does not exist; create it first"));
            }
            _ => {}
        }
        let opened = failed("open lease file", path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(opened)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(opened)?;
        prepare(&mut connection, path)?;
        Ok(Self { identity: identity(path)?, path: path.into(), connection })
    }

    /// Whether another process replaced or removed this file.
    pub(super) fn replaced(&self) -> bool {
        identity(&self.path).ok() != Some(self.identity)
    }

    /// Takes a lease for a node; see [`choose`] for which.
    pub(super) fn acquire(
        &mut self,
        request: &LeaseRequest,
        now: SystemTime,
        timing: &Timing,
    ) -> Result<Lease, StoreError> {
        const OPERATION: &str = "acquire a lease in";
        let path = Arc::clone(&self.path);
        let wrong = failed(OPERATION, &path);
        let json = request
            .attributes
            .to_json()
            .map_err(|error| wrong(rusqlite::Error::ToSqlConversionFailure(Box::new(error))))?;
        let tx = self.write(OPERATION)?;
        expire(&tx, now, timing).map_err(wrong)?;
        let Rows { leases, unreadable, .. } = rows(&tx, 0).map_err(wrong)?;
        let present = leases.iter().map(|lease| (lease.key, &lease.attributes));
        let unreadable: Vec<LeaseKey> = unreadable.into_iter().map(|(key, _)| key).collect();
        let choice = choose(present, &unreadable, request, &mut rand::rng())
            .map_err(|error| refused(OPERATION, &path, &error))?;
        let held = leases.iter().find(|lease| Some(lease.key) == choice.own);
        let expires = match held {
            Some(Lease { expires: None, .. }) => None,
            _ => Some(now + timing.ttl),
        };
        if let Some(own) = choice.own.filter(|own| *own != choice.key) {
            tx.execute("DELETE FROM lease WHERE key = ?1", [own.to_string()]).map_err(wrong)?;
        }
        tx.execute(
            "INSERT INTO lease (key, attributes, expires_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT (key) DO UPDATE SET attributes = excluded.attributes, expires_ms = excluded.expires_ms",
            params![choice.key.to_string(), json, expires.map(to_ms)],
        )
        .map_err(wrong)?;
        tx.commit().map_err(wrong)?;
        Ok(Lease::new(choice.key, request.attributes.clone(), expires))
    }

    /// The lease of the node with these public addresses.
    pub(super) fn find(&mut self, node: &LeaseAttributes) -> Result<Option<Lease>, StoreError> {
        let wrong = failed("read the leases in", &self.path);
        let tx = self.connection.transaction().map_err(wrong)?;
        Ok(rows(&tx, 0).map_err(wrong)?.leases.into_iter().find(|lease| lease.attributes.same_node(node)))
    }

    /// Publishes other attributes with a lease, provided it is still `own`'s.
    pub(super) fn update(
        &mut self,
        own: &Lease,
        attributes: &LeaseAttributes,
    ) -> Result<Result<Lease, LeaseLost>, StoreError> {
        const OPERATION: &str = "update the lease in";
        let path = Arc::clone(&self.path);
        let wrong = failed(OPERATION, &path);
        let json = attributes
            .to_json()
            .map_err(|error| wrong(rusqlite::Error::ToSqlConversionFailure(Box::new(error))))?;
        let tx = self.write(OPERATION)?;
        let expires = match held(&tx, own).map_err(wrong)? {
            Ok(held) => held.expires,
            Err(lost) => return Ok(Err(lost)),
        };
        let leases = rows(&tx, 0).map_err(wrong)?.leases;
        let others = leases.iter().filter(|lease| lease.key != own.key);
        let others = others.map(|lease| (lease.key, &lease.attributes));
        identity_is_free(others, attributes, Some(&own.attributes))
            .map_err(|error| refused(OPERATION, &path, &error))?;
        tx.execute("UPDATE lease SET attributes = ?2 WHERE key = ?1", params![own.key.to_string(), json])
            .map_err(wrong)?;
        tx.commit().map_err(wrong)?;
        Ok(Ok(Lease::new(own.key, attributes.clone(), expires)))
    }

    /// Checks that a lease is still `own`'s, publishes it again if another process changed it and this node
    /// `publishes_again`, and prolongs it if it ends within the margin.
    pub(super) fn renew(
        &mut self,
        own: &Lease,
        publishes_again: bool,
        now: SystemTime,
        timing: &Timing,
    ) -> Result<Result<Held, LeaseLost>, StoreError> {
        const OPERATION: &str = "renew the lease in";
        let path = Arc::clone(&self.path);
        let wrong = failed(OPERATION, &path);
        let tx = self.connection.transaction().map_err(wrong)?;
        let due = |expires: SystemTime| expires <= now + timing.renew_margin;
        match held(&tx, own).map_err(wrong)? {
            Ok(held) if (held.changed && publishes_again) || held.expires.is_some_and(due) => {}
            settled => return Ok(settled),
        }
        drop(tx);
        let json = own
            .attributes
            .to_json()
            .map_err(|error| wrong(rusqlite::Error::ToSqlConversionFailure(Box::new(error))))?;
        let tx = self.write(OPERATION)?;
        let mut held = match held(&tx, own).map_err(wrong)? {
            Ok(held) => held,
            lost => return Ok(lost),
        };
        let until = |expires: SystemTime| if due(expires) { expires.max(now + timing.ttl) } else { expires };
        held.expires = held.expires.map(until);
        let key = own.key.to_string();
        if held.changed && publishes_again {
            tx.execute("UPDATE lease SET attributes = ?2 WHERE key = ?1", params![key, json])
                .map_err(wrong)?;
        }
        tx.execute("UPDATE lease SET expires_ms = ?2 WHERE key = ?1", params![key, held.expires.map(to_ms)])
            .map_err(wrong)?;
        tx.commit().map_err(wrong)?;
        Ok(Ok(held))
    }

    /// What changed since `cursor`; everything without one, or if it is from another file.
    pub(super) fn changes(&mut self, cursor: Option<Cursor>) -> Result<Changes, StoreError> {
        let wrong = failed("read the leases in", &self.path);
        let tx = self.connection.transaction().map_err(wrong)?;
        let now = tx
            .query_row("SELECT id, revision FROM store", [], |row| {
                Ok(Cursor { store: row.get(0)?, revision: row.get(1)? })
            })
            .map_err(wrong)?;
        let since = cursor.filter(|then| then.store == now.store && then.revision <= now.revision);
        let mut changes = Changes {
            cursor: now,
            whole: since.is_none(),
            present: Vec::new(),
            removed: Vec::new(),
            malformed: Vec::new(),
        };
        if since == Some(now) {
            return Ok(changes);
        }
        let found = rows(&tx, since.map_or(0, |since| since.revision)).map_err(wrong)?;
        let place = format!("`{}`", self.path.display());
        let leases = found.leases.into_iter().map(|lease| {
            let key = lease.key;
            LeaseEvent::Upsert(lease.with_gaps_of_json(format_args!("lease {key} in {place}")))
        });
        let unreadable = found.unreadable.into_iter().map(|(key, problem)| LeaseEvent::Malformed {
            key,
            problem: format!("lease {key} in {place}: {problem}"),
        });
        changes.present = leases.chain(unreadable).collect();
        changes.malformed = found.malformed;
        if let Some(since) = since {
            let mut removed = tx.prepare_cached(REMOVED).map_err(wrong)?;
            let keys = removed.query_map([since.revision], |row| row.get_ref(0).map(text)).map_err(wrong)?;
            for key in keys {
                changes.removed.extend(key.map_err(wrong)?.parse::<LeaseKey>().ok());
            }
        }
        Ok(changes)
    }

    /// Removes leases that ended a while ago. Writes nothing if there are none. Says whether there were.
    pub(super) fn expire(&mut self, now: SystemTime, timing: &Timing) -> Result<bool, StoreError> {
        const OPERATION: &str = "remove expired leases from";
        let path = Arc::clone(&self.path);
        let wrong = failed(OPERATION, &path);
        let due = self
            .connection
            .query_row(ENDED, [to_ms(abandoned(now, timing))], |_| Ok(()))
            .optional()
            .map_err(wrong)?;
        if due.is_none() {
            return Ok(false);
        }
        let tx = self.write(OPERATION)?;
        let gone = expire(&tx, now, timing).map_err(wrong)?;
        tx.commit().map_err(wrong)?;
        Ok(gone > 0)
    }

    /// A transaction that holds the write lock from its start, so that no two processes decide on the same facts.
    fn write(&mut self, operation: &'static str) -> Result<Transaction<'_>, StoreError> {
        let Self { connection, path, .. } = self;
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(operation, path))
    }
}

/// Sets the file up, or checks that it is one of ours.
fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let wrong = failed("open lease file", path);
    let fail = |problem| unusable("open lease file", path, problem);
    if version(connection).map_err(wrong)? != (APPLICATION_ID, VERSION) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
        let tables: u32 =
            tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(wrong)?;
        match version(&tx).map_err(wrong)? {
            (APPLICATION_ID, VERSION) => {}
            (APPLICATION_ID, _) => {
                return Err(fail("another version of flanneld made it; use that version, or another path"));
            }
            (0, 0) if tables == 0 => {
                tx.execute_batch(SCHEMA).map_err(wrong)?;
                tx.execute("INSERT INTO store VALUES (?1, 0)", [rand::random::<i64>()]).map_err(wrong)?;
                tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(wrong)?;
                tx.pragma_update(None, "user_version", VERSION).map_err(wrong)?;
            }
            _ => return Err(fail("it is the database of another program; name another path")),
        }
        tx.commit().map_err(wrong)?;
    }
    // Readers never wait for a writer, and a killed writer leaves nothing half done.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).map_err(wrong)?;
    connection.pragma_update(None, "synchronous", "full").map_err(wrong)?;
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(wrong)?;
    if verdict != "ok" {
        return Err(fail(DAMAGED));
    }
    connection.execute_batch(EXPIRY).map_err(wrong)
}

/// No lease, for a reason that is not the file's.
fn refused(operation: &'static str, path: &Path, error: &ChoiceError) -> StoreError {
    StoreError {
        operation,
        object: format!("`{}`", path.display()),
        advice: match error.kind() {
            StoreErrorKind::OutOfSubnets => {
                format!("{error}; widen the network in net-conf.json or remove leases that no node uses")
            }
            _ => error.to_string(),
        },
        kind: error.kind(),
        source: None,
    }
}

fn version(connection: &Connection) -> rusqlite::Result<(i32, i32)> {
    let read = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    Ok((read("application_id")?, read("user_version")?))
}

fn identity(path: &Path) -> Result<(u64, u64), StoreError> {
    let metadata = fs::metadata(path).map_err(|error| StoreError {
        source: Some(Box::new(error)),
        ..unusable("open lease file", path, "it has just been removed")
    })?;
    Ok((metadata.dev(), metadata.ino()))
}

#[derive(Default)]
struct Rows {
    leases: Vec<Lease>,
    /// Keys that are none, and why.
    malformed: Vec<(String, String)>,
    /// Leases whose contents cannot be read, and why.
    unreadable: Vec<(LeaseKey, String)>,
}

fn rows(tx: &Transaction<'_>, after: i64) -> rusqlite::Result<Rows> {
    let mut found = Rows::default();
    let mut query = tx.prepare_cached(CHANGED)?;
    let mut rows = query.query([after])?;
    while let Some(row) = rows.next()? {
        let text = text(row.get_ref(0)?);
        let key = match text.parse::<LeaseKey>() {
            Ok(key) => key,
            Err(error) => {
                found.malformed.push((text, error.to_string()));
                continue;
            }
        };
        let attributes = LeaseAttributes::from_json(row.get_ref(1)?.as_bytes().unwrap_or_default());
        let expires = Option::<i64>::column_result(row.get_ref(2)?);
        let lease = attributes.map_err(|error| error.to_string()).and_then(|attributes| {
            let expires = expires.map_err(|error| format!("expires_ms: {error}"))?.map(from_ms);
            Ok(Lease::new(key, attributes, expires))
        });
        match lease {
            Ok(lease) => found.leases.push(lease),
            Err(problem) => found.unreadable.push((key, cut(&problem))),
        }
    }
    Ok(found)
}

/// A column's text. SQLite keeps anything in any column, and one odd row must not hide the others.
fn text(value: ValueRef<'_>) -> String {
    value.as_bytes().map(String::from_utf8_lossy).unwrap_or_default().into_owned()
}

/// A row that is still its node's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// When it ends.
    pub(super) expires: Option<SystemTime>,
    /// Whether another hand changed what it says.
    pub(super) changed: bool,
}

/// The row of `own`, if it is still its node's. Contents that cannot be read are not another node's, nor are those
/// without an address.
fn held(tx: &Transaction<'_>, own: &Lease) -> rusqlite::Result<Result<Held, LeaseLost>> {
    let row = tx
        .query_row("SELECT attributes, expires_ms FROM lease WHERE key = ?1", [own.key.to_string()], |row| {
            Ok((text(row.get_ref(0)?), row.get::<_, Option<i64>>(1)?))
        })
        .optional()?;
    let Some((json, expires)) = row else { return Ok(Err(LeaseLost::Revoked(own.key))) };
    let published = LeaseAttributes::from_json(json.as_bytes()).ok();
    Ok(match published {
        Some(holder) if holder.is_of_another_node(&own.attributes) => {
            Err(LeaseLost::Taken { key: own.key, holder: Box::new(holder) })
        }
        published => {
            Ok(Held { expires: expires.map(from_ms), changed: published.as_ref() != Some(&own.attributes) })
        }
    })
}

fn expire(tx: &Transaction<'_>, now: SystemTime, timing: &Timing) -> rusqlite::Result<usize> {
    tx.execute("DELETE FROM lease WHERE expires_ms <= ?1", [to_ms(abandoned(now, timing))])
}

/// A lease that ended before this moment is free. Between its end and then it is left to its holder, whose machine
/// may just have woken up.
fn abandoned(now: SystemTime, timing: &Timing) -> SystemTime {
    now.checked_sub(timing.recheck.saturating_mul(6)).unwrap_or(UNIX_EPOCH)
}

fn to_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

fn from_ms(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_at_each_change_looks_at_no_lease_that_has_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases.db");
        Db::open(&path).unwrap().connection.execute_batch("DROP INDEX lease_expiry").unwrap();
        let db = Db::open(&path).unwrap(); // of an earlier release
        for statement in [ENDED, CHANGED, REMOVED] {
            let mut plan = db.connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
            let plan: Vec<String> =
                plan.query_map([0], |row| row.get("detail")).unwrap().map(Result::unwrap).collect();
            assert!(plan.iter().all(|step| step.starts_with("SEARCH")), "{statement}: {plan:?}");
        }
    }
}
