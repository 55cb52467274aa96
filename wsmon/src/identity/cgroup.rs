//! Container and pod, as the path of a process's cgroup tells them.

/// What a cgroup path tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Id of the container: 64 hexadecimal digits.
    pub container: Option<String>,
    /// Uid of the Kubernetes pod.
    pub pod: Option<String>,
}

/// Reads `/proc/PID/cgroup`: lines of `hierarchy:controllers:path`. The innermost container
/// counts.
pub fn placement(cgroup: &str) -> Placement {
    let mut placement = Placement::default();
    for line in cgroup.lines() {
        let Some(path) = line.splitn(3, ':').nth(2) else {
            continue;
        };
        for part in path.split('/') {
            if let Some(id) = container_id(part) {
                placement.container = Some(id.to_owned());
            }
            if let Some(uid) = pod_uid(part) {
                placement.pod = Some(uid);
            }
        }
        if placement.container.is_some() {
            break;
        }
    }
    placement
}

/// `<64 hex>`, `docker-<64 hex>.scope`, `cri-containerd-<64 hex>.scope`, `libpod-<64 hex>` …;
/// but not `libpod-conmon-…`, which is the runtime's own.
fn container_id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    if part.contains("conmon") {
        return None;
    }
    let id = part.rsplit(['-', ':']).next()?;
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(id)
}

/// `pod<uid>`, or `kubepods-burstable-pod<uid with underscores>.slice` by systemd.
fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match part.strip_prefix("pod") {
        Some(uid) => uid,
        None if part.starts_with("kubepods") => part.rsplit_once("-pod")?.1,
        None => return None,
    };
    let is_uid = (32..=36).contains(&uid.len())
        && uid
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_'));
    is_uid.then(|| uid.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "1f2e3d4c-0000-4000-8000-abcdefabcdef";

    fn found(cgroup: &str) -> (Option<String>, Option<String>) {
        let placement = placement(cgroup);
        (placement.container, placement.pod)
    }

    #[test]
    fn a_container_of_kubernetes_with_either_driver() {
        let both = (Some(ID.to_owned()), Some(UID.to_owned()));
        assert_eq!(
            found(&format!("0::/kubepods/burstable/pod{UID}/{ID}")),
            both
        );
        let underscores = UID.replace('-', "_");
        let systemd = format!(
            "0::/kubepods.slice/kubepods-burstable.slice/\
             kubepods-burstable-pod{underscores}.slice/cri-containerd-{ID}.scope"
        );
        assert_eq!(found(&systemd), both);
        let relative = format!("0::/../../pod{UID}/{ID}");
        assert_eq!(found(&relative), both);
    }

    #[test]
    fn a_container_of_docker_or_podman() {
        let container = (Some(ID.to_owned()), None);
        for path in [
            format!("0::/docker/{ID}"),
            format!("0::/system.slice/docker-{ID}.scope/app"),
            format!("0::/libpod_parent/libpod-{ID}"),
            format!("12:pids:/docker/{ID}\n11:cpu,cpuacct:/docker/{ID}\n0::/"),
        ] {
            assert_eq!(found(&path), container, "{path}");
        }
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in [
            "0::/",
            "0::/system.slice/ssh.service",
            "",
            "garbage",
            &format!("0::/libpod_parent/libpod-conmon-{ID}"),
            "0::/user.slice/podium/pod1234",
        ] {
            assert_eq!(found(path), (None, None), "{path}");
        }
    }
}
