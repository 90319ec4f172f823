//! Records the messages of `wg`, an independent implementation. `src/wire/tests/wg_messages.rs` compares this crate's with them.

use std::fs;

use testkit::{golden, netns, sh};

use super::{can_run, private};

/// Arguments of `wg`, run in a folder with the files `private`, `psk` and `conf`.
const COMMANDS: [&str; 6] = [
    "set flannel-wg private-key private listen-port 51820 fwmark 0",
    "set flannel-wg peer KEY preshared-key psk endpoint 192.0.2.2:51820 persistent-keepalive 25 allowed-ips 10.244.2.0/24,fd00:10:244:2::/64",
    "set flannel-wg peer KEY preshared-key /dev/null endpoint [2001:db8::2]:51821 persistent-keepalive 0 allowed-ips fd00:10:244:2::/64",
    "set flannel-wg peer KEY preshared-key psk persistent-keepalive 25 allowed-ips 10.244.2.0/24",
    "set flannel-wg peer KEY remove",
    "setconf flannel-wg conf",
];

/// The payloads of the messages that set a device, as `strace -e write=all` shows them: `WG_CMD_SET_DEVICE` and the version
/// are the first bytes after a netlink header of 16 bytes.
fn payloads(trace: &str) -> Vec<String> {
    let mut sent: Vec<String> = Vec::new();
    for line in trace.lines() {
        match line.strip_prefix(" | ") {
            // "00000  84 00 00 00 1c 00 05 00  6b c5 29 69 00 00 00 00  ........k.)i....": the text may look like bytes.
            Some(dump) => {
                let bytes = dump.get(7..55).unwrap_or_default().split_whitespace();
                sent.last_mut().unwrap().extend(bytes);
            }
            None => sent.push(String::new()),
        }
    }
    let payloads = sent.iter().filter_map(|message| message.get(32..));
    payloads.filter(|payload| payload.starts_with("01010000")).map(str::to_owned).collect()
}

#[test]
fn wg_sends_the_recorded_messages() {
    if !can_run() {
        return;
    }
    netns(|| {
        let folder = std::env::temp_dir().join(format!("wg-messages-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        let (key, own) = (private(2).public().to_string(), private(1).to_base64());
        write("private", &own);
        write("psk", "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=");
        write(
            "conf",
            &format!(
                "[Interface]\nPrivateKey = {own}\nListenPort = 51820\n
                [Peer]\nPublicKey = {key}\nAllowedIPs = 10.244.2.0/24\nEndpoint = 192.0.2.2:51820\n
                [Peer]\nPublicKey = {}\nAllowedIPs = 10.244.3.0/24\nEndpoint = 192.0.2.3:51820\n",
                private(3).public()
            ),
        );
        sh("ip link add flannel-wg type wireguard");
        let mut recorded = String::new();
        for command in COMMANDS {
            let arguments = command.replace("KEY", &key);
            sh(&format!(
                "cd {} && strace -o trace -e trace=sendto -e write=all wg {arguments}",
                folder.display()
            ));
            let trace = fs::read_to_string(folder.join("trace")).unwrap();
            recorded += &format!("wg {command}\n");
            payloads(&trace).iter().for_each(|payload| recorded += &format!("{payload}\n"));
        }
        fs::remove_dir_all(&folder).unwrap();
        golden("tests/golden/wg_messages.txt", &recorded);
    });
}
