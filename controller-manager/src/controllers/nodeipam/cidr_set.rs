//! The blocks of one cluster CIDR that nodes get: which are taken, which is next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// How many blocks there may be, as a power of two: the map of taken blocks is kept in memory.
const MAX_BITS: u8 = 16;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CidrSetError {
    #[error("New CIDR set failed; the node CIDR size is too big")]
    TooManyBlocks,
    #[error("node CIDR mask /{0} is not within the cluster CIDR")]
    BadMask(u8),
    #[error(
        "CIDR allocation failed; there are no remaining CIDRs left to allocate in the accepted range"
    )]
    Full,
    #[error("cidr {0} is out the range of cluster cidr {1}")]
    OutOfRange(IpNet, IpNet),
}

/// The blocks of a cluster CIDR.
#[derive(Debug)]
pub struct CidrSet {
    cluster: IpNet,
    mask: u8,
    taken: Vec<bool>,
    /// Where the next search begins: blocks that were given back are not given out again at once.
    next: usize,
}

impl CidrSet {
    /// Blocks of `mask` bits in `cluster`.
    pub fn new(cluster: IpNet, mask: u8) -> Result<Self, CidrSetError> {
        let cluster = cluster.trunc();
        if mask < cluster.prefix_len() || mask > cluster.max_prefix_len() {
            return Err(CidrSetError::BadMask(mask));
        }
        let bits = mask - cluster.prefix_len();
        if bits > MAX_BITS {
            return Err(CidrSetError::TooManyBlocks);
        }
        Ok(Self {
            cluster,
            mask,
            taken: vec![false; 1 << bits],
            next: 0,
        })
    }

    /// The next free block; it is taken from now on.
    pub fn allocate(&mut self) -> Result<IpNet, CidrSetError> {
        let n = self.taken.len();
        let free = (0..n)
            .map(|i| (self.next + i) % n)
            .find(|i| !self.taken[*i]);
        let index = free.ok_or(CidrSetError::Full)?;
        self.taken[index] = true;
        self.next = (index + 1) % n;
        Ok(self.block(index))
    }

    /// Takes every block that `cidr` overlaps.
    pub fn occupy(&mut self, cidr: IpNet) -> Result<(), CidrSetError> {
        self.mark(cidr, true)
    }

    /// Gives every block back that `cidr` overlaps.
    pub fn release(&mut self, cidr: IpNet) -> Result<(), CidrSetError> {
        self.mark(cidr, false)
    }

    /// Whether any block would overlap `cidr`.
    pub fn overlaps(&self, cidr: IpNet) -> bool {
        self.cluster.contains(&cidr.trunc().network()) || cidr.contains(&self.cluster.network())
    }

    fn mark(&mut self, cidr: IpNet, taken: bool) -> Result<(), CidrSetError> {
        if cidr.max_prefix_len() != self.cluster.max_prefix_len() || !self.overlaps(cidr) {
            return Err(CidrSetError::OutOfRange(cidr, self.cluster));
        }
        let (first, last) =
            if cidr.contains(&self.cluster.network()) && !self.cluster.contains(&cidr) {
                (0, self.taken.len() - 1)
            } else {
                (self.index(cidr.network()), self.index(cidr.broadcast()))
            };
        self.taken[first..=last].fill(taken);
        Ok(())
    }

    fn index(&self, ip: IpAddr) -> usize {
        let shift = self.cluster.max_prefix_len() - self.mask;
        let offset = bits(ip) - bits(self.cluster.network());
        // A block of all addresses shifts by the whole width.
        let index = offset.checked_shr(shift.into()).unwrap_or(0);
        (index as usize).min(self.taken.len() - 1)
    }

    fn block(&self, index: usize) -> IpNet {
        let shift = self.cluster.max_prefix_len() - self.mask;
        let offset = (index as u128).checked_shl(shift.into()).unwrap_or(0);
        let address = bits(self.cluster.network()) + offset;
        let ip = match self.cluster {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(address as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(address)),
        };
        IpNet::new_assert(ip, self.mask)
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cluster: &str, mask: u8) -> CidrSet {
        CidrSet::new(cluster.parse().unwrap(), mask).unwrap()
    }

    #[test]
    fn blocks_in_turn() {
        let mut s = set("10.244.0.0/22", 24);
        let next = |s: &mut CidrSet| s.allocate().map(|b| b.to_string());
        assert_eq!(next(&mut s).unwrap(), "10.244.0.0/24");
        assert_eq!(next(&mut s).unwrap(), "10.244.1.0/24");
        s.release("10.244.0.0/24".parse().unwrap()).unwrap();
        s.occupy("10.244.2.0/24".parse().unwrap()).unwrap();
        assert_eq!(next(&mut s).unwrap(), "10.244.3.0/24");
        assert_eq!(next(&mut s).unwrap(), "10.244.0.0/24");
        assert_eq!(next(&mut s), Err(CidrSetError::Full));
    }

    #[test]
    fn occupied_ranges_of_other_sizes() {
        let mut s = set("10.0.0.0/16", 24);
        s.occupy("10.0.0.0/23".parse().unwrap()).unwrap();
        s.occupy("10.0.2.128/25".parse().unwrap()).unwrap();
        assert_eq!(s.allocate().unwrap().to_string(), "10.0.3.0/24");
        s.occupy("10.0.0.0/8".parse().unwrap()).unwrap();
        assert_eq!(s.allocate(), Err(CidrSetError::Full));
        assert!(s.occupy("10.1.0.0/24".parse().unwrap()).is_err());
        assert!(s.occupy("fd00::/64".parse().unwrap()).is_err());
    }

    #[test]
    fn ipv6() {
        let mut s = set("fd00:1234::/48", 64);
        s.allocate().unwrap();
        assert_eq!(s.allocate().unwrap().to_string(), "fd00:1234:0:1::/64");
        assert!(matches!(
            CidrSet::new("fd00::/40".parse().unwrap(), 64),
            Err(CidrSetError::TooManyBlocks)
        ));
        assert!(matches!(
            CidrSet::new("10.0.0.0/24".parse().unwrap(), 16),
            Err(CidrSetError::BadMask(16))
        ));
        assert_eq!(
            set("0.0.0.0/0", 0).allocate().unwrap().to_string(),
            "0.0.0.0/0"
        );
    }
}
