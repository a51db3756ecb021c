use serde_json::{Value, json};

use super::*;
use crate::sys::host::fake::FakeHost;

const IQN: &str = "iqn.2001-04.com.example:storage";

/// `iscsiadm` that has the kernel show a session once somebody has logged in.
const ISCSIADM: &str = r#"
session="$ROOT/sys/class/iscsi_host/host3/device/session1"
case "$*" in
*"-o show") printf 'iface.iscsi_ifacename = default\niface.net_ifacename = <empty>\niface.transport_name = tcp\n';;
*--login)
  connection="$session/connection1:0/iscsi_connection/connection1:0"
  mkdir -p "$session/iscsi_session/session1" "$connection" "$ROOT/sys/class/scsi_host/host3"
  echo iqn.2001-04.com.example:storage > "$session/iscsi_session/session1/targetname"
  for name in address persistent_address; do echo 10.0.0.9 > "$connection/$name"; done
  for name in port persistent_port; do echo 3260 > "$connection/$name"; done
  touch "$ROOT/sys/class/scsi_host/host3/scan"
  for lun in 1 2; do
    mkdir -p "$session/target3:0:0/3:0:0:$lun/block/sd$lun" "$ROOT/sys/block/sd$lun/device" "$ROOT/dev/disk/by-path"
    touch "$ROOT/dev/sd$lun" "$ROOT/sys/block/sd$lun/device/delete"
    ln -sf "$ROOT/dev/sd$lun" "$ROOT/dev/disk/by-path/ip-10.0.0.9:3260-iscsi-iqn.2001-04.com.example:storage-lun-$lun"
  done;;
*"--logout -I default") rm -r "$session";;
esac
"#;

struct Bench {
    fake: FakeHost,
    root: PathBuf,
    disks: Arc<Disks>,
}

impl Bench {
    fn new() -> Self {
        let fake = FakeHost::new();
        fake.tool("iscsiadm", ISCSIADM);
        fake.tool("blkid", "echo TYPE=ext4");
        let root = fake.dir.path().canonicalize().unwrap().join("k");
        let disks = Disks::new(fake.host.clone(), Root::new(&root), None, None);
        Self { fake, root, disks }
    }

    /// As a kubelet that starts anew.
    fn restart(&mut self) {
        self.disks = Disks::new(self.fake.host.clone(), Root::new(&self.root), None, None);
    }

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": uid, "namespace": "n", "uid": uid}, "spec": {"containers": []}}))
            .unwrap()
    }

    fn inline(volume: Value) -> Disk {
        Disk::inline(&Self::pod("u"), &serde_json::from_value(volume).unwrap())
            .unwrap()
            .unwrap()
    }

    fn unmount(&self, point: &Path) {
        self.fake
            .host
            .run("umount", &[&point.to_string_lossy()])
            .unwrap();
    }

    /// Lets go of what nobody has.
    fn sweep(&self) {
        for place in self.disks.places() {
            self.disks.let_go(&place).unwrap();
        }
    }
}

fn iscsi(name: &str, lun: i32) -> Disk {
    Bench::inline(
        json!({"name": name, "iscsi": {"targetPortal": "10.0.0.9", "iqn": IQN, "lun": lun}}),
    )
}

#[tokio::test]
async fn an_iscsi_disk_is_shared_and_goes_with_its_last_pod() {
    let mut bench = Bench::new();
    let first = bench
        .disks
        .mount(&Bench::pod("u1"), &iscsi("v", 1))
        .await
        .unwrap();
    let place = format!("/k/plugins/kubernetes.io/iscsi/iface-default/10.0.0.9:3260-{IQN}-lun-1");
    let node = format!("-m node -p 10.0.0.9:3260 -T {IQN}");
    let discovery = "-m discoverydb -t sendtargets -p 10.0.0.9:3260 -I default";
    let disk = format!("/dev/disk/by-path/ip-10.0.0.9:3260-iscsi-{IQN}-lun-1");
    let pod = "/k/pods/u1/volumes/kubernetes.io~iscsi/v";
    assert_eq!(
        bench.fake.calls(),
        [
            "iscsiadm -m iface -I default -o show".to_owned(),
            format!("iscsiadm {discovery} -o new"),
            format!("iscsiadm {discovery} --discover"),
            format!("iscsiadm {node} -I default -o update -n node.session.scan -v manual"),
            format!("iscsiadm {node} -I default --login"),
            format!("iscsiadm {node} -o update -n node.startup -v manual"),
            format!("blkid -p -s TYPE -s PTTYPE -o export {disk}"),
            format!("fsck -a {disk}"),
            format!("mount -t ext4 -o defaults {disk} {place}"),
            format!("mount -o bind {place} {pod}"),
            format!("mount -o bind,remount {place} {pod}"),
        ]
    );
    let saved = bench.root.join(&place[3..]).join("iscsi.json");
    let saved = fs::read_to_string(saved).unwrap();
    assert!(
        saved.starts_with("{\"VolName\":\"v\",\"Portals\":[\"10.0.0.9:3260\"],\"Iqn\":\"iqn")
            && saved.ends_with(",\"Lun\":\"1\",\"InitIface\":\"default\",\"Iface\":\"default\",\"InitiatorName\":\"\",\"MetricsProvider\":null}\n"),
        "{saved}"
    );
    // The same disk for another pod is neither brought in nor mounted again; nor for the same pod.
    let second = bench
        .disks
        .mount(&Bench::pod("u2"), &iscsi("w", 1))
        .await
        .unwrap();
    bench
        .disks
        .mount(&Bench::pod("u2"), &iscsi("w", 1))
        .await
        .unwrap();
    let calls = bench.fake.calls();
    assert_eq!(
        calls
            .iter()
            .filter(|call| call.starts_with("mount -t") || call.contains("--login"))
            .count(),
        0
    );
    assert_eq!(calls.len(), 3);
    // Another LUN of the target keeps the session open.
    let other = bench
        .disks
        .mount(&Bench::pod("u2"), &iscsi("x", 2))
        .await
        .unwrap();
    bench.unmount(&first);
    bench.restart();
    bench.sweep();
    bench.unmount(&second);
    bench.fake.calls();
    bench.sweep();
    assert_eq!(bench.fake.calls(), [format!("umount {place}")]);
    assert_eq!(
        fs::read_to_string(bench.fake.dir.path().join("sys/block/sd1/device/delete")).unwrap(),
        "1"
    );
    bench.unmount(&other);
    bench.fake.calls();
    bench.sweep();
    let calls = bench.fake.calls();
    let ends = [
        format!("iscsiadm {node} --logout -I default"),
        format!("iscsiadm {node} -o delete -I default"),
    ];
    assert_eq!(calls[1..], ends);
    assert!(bench.disks.places().is_empty());
}

#[tokio::test]
async fn an_initiator_of_ones_own_and_secrets() {
    let bench = Bench::new();
    let mut disk = Bench::inline(
        json!({"name": "v", "iscsi": {"targetPortal": "10.0.0.9", "iqn": IQN, "lun": 1,
        "initiatorName": "iqn.me", "chapAuthDiscovery": true, "chapAuthSession": true, "readOnly": true}}),
    );
    let Source::Iscsi(source) = &mut disk.source else {
        panic!()
    };
    source.secret = [
        ("node.session.auth.username", "user"),
        ("discovery.sendtargets.auth.password", "pass"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    disk.source.attach(&bench.fake.host).unwrap();
    let calls = bench.fake.calls();
    let iface = "iscsiadm -m iface -I 10.0.0.9:3260:v";
    assert_eq!(calls[1], format!("{iface} -o new"));
    assert_eq!(
        calls[2],
        format!("{iface} -o update -n iface.initiatorname -v iqn.me")
    );
    assert_eq!(
        calls[3],
        format!("{iface} -o update -n iface.transport_name -v tcp")
    );
    for told in [
        "-n discovery.sendtargets.auth.authmethod -v CHAP",
        "-n discovery.sendtargets.auth.password -v pass",
        "-n node.session.auth.authmethod -v CHAP",
        "-n node.session.auth.username -v user",
    ] {
        assert_eq!(
            calls.iter().filter(|call| call.ends_with(told)).count(),
            1,
            "{told}"
        );
    }
    let Source::Iscsi(source) = &disk.source else {
        panic!()
    };
    let dir = bench.root.join("place");
    make_dir(&dir).unwrap();
    source.save(&dir).unwrap();
    assert!(
        !fs::read_to_string(dir.join(iscsi::FILE))
            .unwrap()
            .contains("pass")
    );
    Iscsi::known(&dir)
        .unwrap()
        .detach(&bench.fake.host, false)
        .unwrap();
    assert_eq!(
        bench.fake.calls().last().unwrap(),
        &format!("{iface} -o delete")
    );
}

#[tokio::test]
async fn a_target_that_is_not_there() {
    let bench = Bench::new();
    bench.fake.tool("iscsiadm", "case \"$*\" in *show) echo 'iface.transport_name = tcp';; *--discover) echo gone; exit 4;; esac");
    let error = bench
        .disks
        .mount(&Bench::pod("u"), &iscsi("v", 1))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "MountVolume.WaitForAttach failed for volume \"v\" : failed to get any path for iscsi disk, last err seen:\n\
         iscsi: failed to sendtargets to portal 10.0.0.9:3260 output: exit status 4: gone\n"
    );
    assert!(bench.fake.calls().last().unwrap().ends_with("-o delete"));
}

#[test]
fn directories_tell_what_they_are_for() {
    let dir = Path::new("/p/iscsi/iface-default/[fd00::1]:3260-iqn.2001-04.com.example:a-b-lun-7");
    let disk = Iscsi::known(dir).unwrap();
    assert_eq!(disk.portals, ["[fd00::1]:3260"]);
    assert_eq!(
        (disk.iqn.as_str(), disk.lun.as_str()),
        ("iqn.2001-04.com.example:a-b", "7")
    );
    assert_eq!(
        disk.dir_name(),
        Path::new("iface-default").join(dir.file_name().unwrap())
    );
    let names = vec!["5006".to_owned(), "5007".to_owned()];
    let disk = Fc::known(Path::new("/p/fc/5006-5007-lun-3")).unwrap();
    assert_eq!(disk, Fc::Targets { names, lun: 3 });
    assert_eq!(disk.unique_name(), "[5006 5007]:3");
    assert_eq!(
        Fc::known(Path::new("/p/fc/3600508b")).unwrap(),
        Fc::Ids(vec!["3600508b".into()])
    );
}

fn fc(spec: Value) -> Disk {
    let volume = json!({"metadata": {"name": "pv"}, "spec": spec});
    let volume = serde_json::from_value(volume).unwrap();
    Disk::persistent(&Bench::pod("u"), &volume, false, &["noatime".into()])
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_fibre_channel_disk_by_several_paths() {
    let bench = Bench::new();
    let disk = fc(json!({"fc": {"targetWWNs": ["5006", "5007"], "lun": 2, "fsType": "xfs"}}));
    bench.fake.tool("mkfs.xfs", "");
    bench.fake.tool("blkid", "exit 2");
    let error = bench
        .disks
        .mount(&Bench::pod("u"), &disk)
        .await
        .unwrap_err();
    assert!(error.to_string().ends_with("no fc disk found"), "{error}");
    for (number, name) in [("5006", "sda"), ("5007", "sdb")] {
        bench.fake.file(&format!("dev/{name}"), "");
        bench
            .fake
            .file(&format!("sys/block/dm-0/slaves/{name}"), "");
        bench
            .fake
            .file(&format!("sys/block/{name}/device/delete"), "");
        bench.fake.link(
            &format!("dev/disk/by-path/pci-0000:04:00.0-fc-0x{number}-lun-2"),
            &format!("dev/{name}"),
        );
    }
    bench.fake.file("dev/dm-0", "");
    bench.fake.calls();
    let target = bench.disks.mount(&Bench::pod("u"), &disk).await.unwrap();
    let place = "/k/plugins/kubernetes.io/fc/5006-5007-lun-2";
    let calls = bench.fake.calls();
    assert_eq!(calls[1], "mkfs.xfs -f /dev/dm-0");
    assert_eq!(
        calls[2],
        format!("mount -t xfs -o noatime,defaults /dev/dm-0 {place}")
    );
    assert!(
        calls[4].starts_with("mount -o bind,remount,noatime "),
        "{}",
        calls[4]
    );
    bench.sweep();
    assert!(bench.fake.calls().is_empty(), "a pod has it");
    bench.unmount(&target);
    bench.fake.calls();
    bench.sweep();
    let ends = [
        format!("umount {place}"),
        "multipath -f /dev/dm-0".into(),
        "blockdev --flushbufs /dev/sda".into(),
        "blockdev --flushbufs /dev/sdb".into(),
    ];
    assert_eq!(bench.fake.calls(), ends);
    let deleted = |name: &str| {
        fs::read_to_string(
            bench
                .fake
                .dir
                .path()
                .join(format!("sys/block/{name}/device/delete")),
        )
    };
    assert_eq!(
        (deleted("sda").unwrap(), deleted("sdb").unwrap()),
        ("1".into(), "1".into())
    );
}

#[tokio::test]
async fn a_disk_as_a_device() {
    let mut bench = Bench::new();
    bench.fake.file("dev/sda", "");
    bench.fake.link("dev/disk/by-id/scsi-3600_x", "dev/sda");
    let disk = fc(json!({"volumeMode": "Block", "fc": {"wwids": ["3600 x"]}}));
    let link = bench.disks.map(&Bench::pod("u"), &disk).await.unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/dev/sda"));
    assert!(link.ends_with("pods/u/volumeDevices/kubernetes.io~fc/pv"));
    let held = "/k/plugins/kubernetes.io/fc/volumeDevices/3600_x/u";
    assert_eq!(
        bench.fake.calls(),
        [format!("mount -o bind /dev/sda {held}")]
    );
    bench.disks.map(&Bench::pod("u"), &disk).await.unwrap();
    bench.restart();
    bench.sweep();
    assert!(bench.fake.calls().is_empty(), "a pod has it");
    bench.disks.unmap_pod("u").unwrap();
    assert!(link.symlink_metadata().is_err());
    bench.sweep();
    assert_eq!(
        bench.fake.calls(),
        [
            format!("umount {held}"),
            "blockdev --flushbufs /dev/sda".into()
        ]
    );
    assert!(bench.disks.places().is_empty());
}
