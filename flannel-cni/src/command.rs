//! The commands of the CNI specification.

use std::ffi::OsString;

use serde_json::{Map, Value, json};

use crate::conf::{Attachment, NetConf};
use crate::delegate;
use crate::error::CniError;
use crate::request::Request;
use crate::spec::{
    BAD_CONF, BAD_ENVIRONMENT, DECODING, INCOMPATIBLE_VERSION, IO, NOT_AVAILABLE, OLDEST_VERSION, VERSIONS,
};
use crate::stale_bridge;
use crate::state::State;
use crate::subnet_env::SubnetEnv;

/// Carries out a request; `conf` is the network configuration. Returns what goes to standard output.
///
/// # Errors
/// [`CniError`], as the runtime gets it.
pub fn answer(request: &Request, conf: &[u8]) -> Result<Vec<u8>, CniError> {
    if request.command == "VERSION" {
        let newest = VERSIONS.last().copied().unwrap_or_default();
        return Ok(json!({ "cniVersion": newest, "supportedVersions": VERSIONS }).to_string().into_bytes());
    }
    let conf = NetConf::parse(conf)?;
    let version = if conf.version.is_empty() { OLDEST_VERSION } else { &conf.version };
    let Some(version) = VERSIONS.iter().position(|known| *known == version) else {
        let message =
            format!("incompatible CNI versions: config is {version:?}, plugin supports {VERSIONS:?}");
        return Err(CniError::plain(INCOMPATIBLE_VERSION, message));
    };
    let since =
        |first: &str| VERSIONS.iter().position(|known| *known == first).is_some_and(|first| version >= first);
    match request.command.as_str() {
        "ADD" => add(request, &conf),
        "DEL" => del(request, &conf).map(|()| Vec::new()),
        "CHECK" if since("0.4.0") => check(request, &conf).map(|()| Vec::new()),
        "STATUS" if since("1.1.0") => status(request, &conf).map(|()| Vec::new()),
        "GC" if since("1.1.0") => collect(request, &conf).map(|()| Vec::new()),
        "CHECK" | "STATUS" | "GC" => {
            let message = format!("config version does not allow {}", request.command);
            Err(CniError::plain(INCOMPATIBLE_VERSION, message))
        }
        other => Err(CniError::plain(BAD_ENVIRONMENT, format!("unknown CNI_COMMAND: {other}"))),
    }
}

fn add(request: &Request, conf: &NetConf) -> Result<Vec<u8>, CniError> {
    let env = SubnetEnv::read_complete(&conf.subnet_file)?;
    if let Some(bridge) = conf.bridge() {
        stale_bridge::remove_if_stale(bridge, &env, &conf.data_dir)?;
    }
    let delegate = conf.delegate(&env);
    let saved = State(&conf.data_dir).save(&request.container, &request.ifname, &delegate);
    saved.map_err(|error| {
        let message = format!(
            "cannot save what the container's removal needs in {}; {} in container {} is not added",
            conf.data_dir.display(),
            request.ifname,
            request.container
        );
        CniError::new(IO, message, error)
    })?;
    delegate::run(request, "ADD", type_of(&delegate), &delegate)
}

/// Undoes what ADD did. What was saved stays if the delegate fails, so that the runtime's next try finds it.
fn del(request: &Request, conf: &NetConf) -> Result<(), CniError> {
    let state = State(&conf.data_dir);
    let saved = state.load(&request.container, &request.ifname);
    let Some((file, saved)) = saved.map_err(|error| cannot_read(request, conf, "removed", error))? else {
        return Ok(()); // Never added, or deleted before.
    };
    let delegate: Map<String, Value> = match serde_json::from_slice(&saved) {
        Ok(delegate) => delegate,
        // A crash of upstream's plugin leaves half a file. What ADD would use now is most likely what it used.
        Err(_half) => match SubnetEnv::read_complete(&conf.subnet_file) {
            Ok(env) => conf.delegate(&env),
            Err(_unknown) => Map::new(),
        },
    };
    if !delegate.is_empty() {
        delegate::run(request, "DEL", type_of(&delegate), &delegate)?;
    }
    std::fs::remove_file(&file).map_err(|error| {
        let message = format!(
            "{} in container {} is removed, but its file {} cannot be deleted",
            request.ifname,
            request.container,
            file.display()
        );
        CniError::new(IO, message, error)
    })
}

/// What ADD saved cannot be read, so that the interface is not `done`.
fn cannot_read(request: &Request, conf: &NetConf, done: &str, error: std::io::Error) -> CniError {
    let message = format!(
        "cannot read what was saved for container {} in {}; {} is not {done}",
        request.container,
        conf.data_dir.display(),
        request.ifname
    );
    CniError::new(IO, message, error)
}

fn check(request: &Request, conf: &NetConf) -> Result<(), CniError> {
    let saved = State(&conf.data_dir).load(&request.container, &request.ifname);
    let Some((file, saved)) = saved.map_err(|error| cannot_read(request, conf, "checked", error))? else {
        let message = format!(
            "cannot check the interface: {} has no file of {} in container {}: this plugin did not add it, or the file was \
             deleted; nothing was changed, recreate the pod",
            conf.data_dir.display(),
            request.ifname,
            request.container
        );
        return Err(CniError::plain(BAD_CONF, message));
    };
    let mut delegate: Map<String, Value> = serde_json::from_slice(&saved).map_err(|error| {
        let message = format!(
            "{} is damaged, so {} in container {} cannot be checked; recreate the pod",
            file.display(),
            request.ifname,
            request.container
        );
        CniError::new(DECODING, message, error)
    })?;
    if let Some(mut result) = conf.prev_result.clone() {
        // The reference plugins up to 1.1 look for a route without gateway, but made it through the default one.
        if let Some(Value::Array(routes)) = result.get_mut("routes") {
            routes.retain(|route| route.get("gw").is_some());
        }
        delegate.insert("prevResult".to_owned(), result);
    }
    delegate::run(request, "CHECK", type_of(&delegate), &delegate).map(drop)
}

/// Whether ADD can succeed: there is a subnet, and the delegate and its IPAM plugin are installed and ready.
fn status(request: &Request, conf: &NetConf) -> Result<(), CniError> {
    let unavailable = |error: CniError| CniError { code: NOT_AVAILABLE, ..error };
    let env = SubnetEnv::read_complete(&conf.subnet_file).map_err(unavailable)?;
    let delegate = conf.delegate(&env);
    delegate::find(&request.path, ipam_type(&delegate)).map_err(unavailable)?;
    delegate::find(&request.path, conf.delegate_type()).map_err(unavailable)?;
    match delegate::run(request, "STATUS", conf.delegate_type(), &delegate) {
        Err(error) if !delegate::does_not_know(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Deletes what is saved of containers that the runtime no longer has, and has the delegate and its IPAM plugin do the same.
fn collect(request: &Request, conf: &NetConf) -> Result<(), CniError> {
    let Some(valid) = &conf.valid_attachments else {
        return Err(CniError::plain(
            BAD_CONF,
            "cannot collect garbage, nothing was removed: the configuration has no key cni.dev/valid-attachments, which the \
             container runtime sets to the list of attachments in use; a call by hand has to add it",
        ));
    };
    let failed = |error| {
        let message =
            format!("cannot list the saved attachments in {}; nothing was removed", conf.data_dir.display());
        CniError::new(IO, message, error)
    };
    let mut first_failure = Ok(());
    for (container, ifname, file) in State(&conf.data_dir).all().map_err(failed)? {
        // Other networks may save in the same folder; half a file names none.
        let saved = std::fs::read(&file)
            .ok()
            .and_then(|saved| serde_json::from_slice::<Map<String, Value>>(&saved).ok());
        let is_ours =
            saved.is_some_and(|saved| saved.get("name").and_then(Value::as_str) == Some(&conf.name));
        let in_use = valid.iter().any(|Attachment { container: used, ifname: name }| {
            // Upstream's plugin saves every interface under the container's name.
            *used == container && (*name == ifname || ifname == "eth0")
        });
        if is_ours && !in_use {
            let gone = Request { container, ifname, netns: OsString::new(), ..request.clone() };
            let deleted = del(&gone, conf);
            first_failure = first_failure.and(deleted);
        }
    }
    let env = SubnetEnv::read_complete(&conf.subnet_file)?;
    let mut delegate = conf.delegate(&env);
    let attachments =
        valid.iter().map(|used| json!({ "containerID": used.container, "ifname": used.ifname }));
    delegate.insert("cni.dev/valid-attachments".to_owned(), attachments.collect::<Vec<_>>().into());
    // The reference plugin bridge, up to 1.10, has no GC of its own and does not pass it on; host-local 1.10 has.
    for plugin in [conf.delegate_type(), ipam_type(&delegate)] {
        match delegate::run(request, "GC", plugin, &delegate) {
            Err(error) if !delegate::does_not_know(&error) => first_failure = first_failure.and(Err(error)),
            _ => {}
        }
    }
    first_failure
}

fn type_of(delegate: &Map<String, Value>) -> &str {
    delegate.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn ipam_type(delegate: &Map<String, Value>) -> &str {
    delegate.get("ipam").and_then(|ipam| ipam.get("type")?.as_str()).unwrap_or_default()
}
