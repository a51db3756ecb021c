//! Which file systems the node has, and what follows from it: what of a pod lies on which of them,
//! and what can be given up there before a pod is. Pure.

use super::thresholds::Signal;

/// How images and containers' layers lie beside the kubelet's own files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// All on one file system.
    One,
    /// Images and layers on one of their own.
    ImagesApart,
    /// Images on one of their own, layers with the kubelet's files (KEP-4191).
    Split,
}

/// File systems by device number.
#[derive(Debug, Clone, Copy)]
pub struct Devices {
    pub node: u64,
    pub images: u64,
    pub containers: u64,
}

impl Devices {
    pub fn disks(self) -> Disks {
        if self.images != self.containers {
            Disks::Split
        } else if self.images != self.node {
            Disks::ImagesApart
        } else {
            Disks::One
        }
    }
}

/// What of a pod counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Writable layers of its containers.
    pub layers: bool,
    /// Their logs, and volumes on the node's disk.
    pub files: bool,
}

/// What can be given up that no pod needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spare {
    pub containers: bool,
    pub images: bool,
}

fn is_images(signal: Signal) -> bool {
    matches!(signal, Signal::ImageFsAvailable | Signal::ImageFsInodesFree)
}

fn is_node(signal: Signal) -> bool {
    matches!(signal, Signal::NodeFsAvailable | Signal::NodeFsInodesFree)
}

impl Disks {
    /// What of a pod lies on the file system that `signal` is about.
    pub fn parts(self, signal: Signal) -> Parts {
        let (layers, files) = match self {
            Self::One => (true, true),
            Self::ImagesApart if is_node(signal) => (false, true),
            Self::ImagesApart => (true, false),
            Self::Split if is_images(signal) => (false, false),
            Self::Split => (true, true),
        };
        Parts { layers, files }
    }

    /// What can be given up there.
    pub fn spare(self, signal: Signal) -> Spare {
        let disk = is_images(signal)
            || is_node(signal)
            || matches!(
                signal,
                Signal::ContainerFsAvailable | Signal::ContainerFsInodesFree
            );
        let (containers, images) = match self {
            _ if !disk => (false, false),
            Self::One => (true, true),
            Self::ImagesApart if is_node(signal) => (false, false),
            Self::ImagesApart => (true, true),
            Self::Split => (!is_images(signal), is_images(signal)),
        };
        Spare { containers, images }
    }

    /// Whether layers lie beside logs and volumes, and so count to a container's limit.
    pub fn layers_are_local(self) -> bool {
        self == Self::One
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_where() {
        let devices = |node, images, containers| Devices {
            node,
            images,
            containers,
        };
        assert_eq!(devices(1, 1, 1).disks(), Disks::One);
        assert_eq!(devices(1, 2, 2).disks(), Disks::ImagesApart);
        assert_eq!(devices(1, 2, 1).disks(), Disks::Split);
        assert_eq!(devices(1, 1, 2).disks(), Disks::Split);
        // Layers and files that count; containers and images that can go.
        let row = |disks: Disks, signal| {
            let (parts, spare) = (disks.parts(signal), disks.spare(signal));
            let marks = [
                (parts.layers, 'l'),
                (parts.files, 'f'),
                (spare.containers, 'c'),
                (spare.images, 'i'),
            ];
            let marks = marks
                .into_iter()
                .filter(|(is, _)| *is)
                .map(|(_, mark)| mark);
            marks.collect::<String>()
        };
        use Signal::*;
        for (disks, node, images, containers) in [
            (Disks::One, "lfci", "lfci", "lfci"),
            (Disks::ImagesApart, "f", "lci", "lci"),
            (Disks::Split, "lfc", "i", "lfc"),
        ] {
            for (signal, want) in [
                (NodeFsAvailable, node),
                (NodeFsInodesFree, node),
                (ImageFsAvailable, images),
                (ImageFsInodesFree, images),
                (ContainerFsAvailable, containers),
                (ContainerFsInodesFree, containers),
            ] {
                assert_eq!(row(disks, signal), want, "{disks:?} {signal:?}");
            }
        }
        for signal in [MemoryAvailable, AllocatableMemoryAvailable, PidAvailable] {
            let spare = Disks::One.spare(signal);
            assert!(!spare.containers && !spare.images, "{signal:?}");
        }
    }
}
