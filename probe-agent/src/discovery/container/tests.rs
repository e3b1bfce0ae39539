#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OUTER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

fn of(cgroup: &str) -> Option<String> {
    from_cgroup(cgroup.as_bytes()).map(|id| id.as_str().to_owned())
}

#[test]
fn finds_the_id_in_every_form_of_cgroup_path() {
    for path in [
        format!("12:pids:/docker/{ID}\n11:cpu:/docker/{ID}\n"),
        format!("0::/system.slice/docker-{ID}.scope\n"),
        format!(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-{ID}.scope"
        ),
        format!("0::/kubepods.slice/kubepods-pod1_2.slice/crio-{ID}.scope\n"),
        format!("0::/kubepods/besteffort/pod2d3b/{ID}\n"),
        format!("5:memory:/system.slice/containerd.service/kubepods-burstable-pod1_2.slice:cri-containerd:{ID}\n"),
        format!("0::/machine.slice/libpod-{ID}.scope/container\n"),
        format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container\n"),
        format!("1:name=systemd:/ecs/task/{ID}\n0::/\n"),
        format!("0::/../{ID}\n"),
        format!("0::/docker/{OUTER}/docker/{ID}/init.scope\n"),
        format!("9:name=systemd:/\n8:pids:/\n4:memory:/docker/{ID}\n0::/\n"),
    ] {
        assert_eq!(of(&path).as_deref(), Some(ID), "{path}");
    }
}

#[test]
fn finds_none_where_there_is_none() {
    for path in [
        "0::/\n".to_owned(),
        "0::/user.slice/user-1000.slice/session-2.scope\n".to_owned(),
        format!("0::/machine.slice/libpod-conmon-{ID}.scope\n"),
        format!("0::/kubepods.slice/crio-conmon-{ID}.scope\n"),
        format!("0::/docker/{}\n", ID.get(1..).unwrap()),
        format!("0::/docker/{ID}0\n"),
        format!("0::/docker/{}\n", ID.to_uppercase()),
        format!("docker/{ID}"),
    ] {
        assert_eq!(of(&path), None, "{path}");
    }
}

#[test]
fn falls_back_to_the_files_that_a_runtime_mounts() {
    let docker = format!(
        "1 0 0:1 / / rw - overlay overlay rw\n\
         2 1 254:1 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda1 rw\n"
    );
    assert_eq!(from_mountinfo(docker.as_bytes()).unwrap().as_str(), ID);
    let podman = format!(
        "3 1 0:25 /containers/overlay-containers/{ID}/userdata/.containerenv /run/.containerenv rw - tmpfs tmpfs rw"
    );
    assert_eq!(from_mountinfo(podman.as_bytes()).unwrap().as_str(), ID);
}

#[test]
fn mounts_of_other_containers_and_of_pods_are_not_its_own() {
    let seen_from_the_host = format!("4 1 0:30 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw\n");
    assert_eq!(from_mountinfo(seen_from_the_host.as_bytes()), None);
    let pod = format!(
        "5 1 8:1 /var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{ID}/hostname /etc/hostname rw - ext4 /dev/sda rw\n"
    );
    assert_eq!(from_mountinfo(pod.as_bytes()), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = from_cgroup(&bytes);
        let _ = from_mountinfo(&bytes);
    }

    #[test]
    fn what_is_found_is_always_64_digits(file in "[0-9]{1,2}:[a-z]*:(/[a-f0-9:.-]{0,80}){0,4}") {
        if let Some(id) = from_cgroup(file.as_bytes()) {
            prop_assert_eq!(id.as_str().len(), 64);
            prop_assert!(id.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }
}
