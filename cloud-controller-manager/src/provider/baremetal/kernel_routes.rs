//! Routes in a table of this machine's kernel, told from others by their protocol number.
//!
//! What must not be here: which routes there should be (`controllers/route`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::inventory::RoutingTable;
use crate::provider::ProviderError;

/// Who made a route (`rtm_protocol`): a number that `rt_protos` leaves to anybody.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(136);

pub struct KernelRoutes {
    table: u32,
}

impl KernelRoutes {
    pub fn new(table: &RoutingTable) -> Self {
        Self { table: table.table }
    }

    /// Destinations and gateways of the routes that were made here.
    pub async fn list(&self) -> Result<Vec<(IpNet, IpAddr)>, ProviderError> {
        // Kept to the end: the answers stop when the last handle goes.
        let handle = connect()?;
        let mut found = Vec::new();
        for all in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            let mut routes = std::pin::pin!(handle.route().get(all).execute());
            while let Some(route) = routes.try_next().await.map_err(failed)? {
                if route.header.protocol == PROTOCOL && table(&route) == self.table {
                    found.extend(read(&route));
                }
            }
        }
        Ok(found)
    }

    pub async fn replace(&self, to: IpNet, gateway: IpAddr) -> Result<(), ProviderError> {
        let route = builder(to, self.table)?
            .gateway(gateway)
            .map_err(|e| ProviderError::Failed(format!("route to {to} via {gateway}: {e}")))?;
        let add = connect()?.route().add(route.build()).replace();
        add.execute().await.map_err(failed)
    }

    pub async fn remove(&self, to: IpNet) -> Result<(), ProviderError> {
        let route = builder(to, self.table)?.build();
        match connect()?.route().del(route).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -ESRCH => Ok(()),
            other => other.map_err(failed),
        }
    }
}

/// No such route.
const ESRCH: i32 = 3;

/// The address of a node that a route to it goes through: the internal one, of the
/// destination's family.
pub fn gateway(to: &IpNet, addresses: &[(String, String)]) -> Result<IpAddr, String> {
    let fits = |ip: &IpAddr| ip.is_ipv4() == to.addr().is_ipv4();
    addresses
        .iter()
        .filter(|(kind, _)| kind == "InternalIP")
        .filter_map(|(_, address)| address.parse().ok())
        .find(fits)
        .ok_or_else(|| format!("the node has no internal address to route {to} to"))
}

/// A connection per question: they are few, and minutes apart.
fn connect() -> Result<Handle, ProviderError> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|e| ProviderError::Failed(format!("cannot open a netlink socket: {e}")))?;
    tokio::spawn(connection);
    Ok(handle)
}

fn failed(error: rtnetlink::Error) -> ProviderError {
    ProviderError::Failed(format!("netlink: {error}"))
}

fn builder(to: IpNet, table: u32) -> Result<RouteMessageBuilder<IpAddr>, ProviderError> {
    let to = to.trunc();
    RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to.addr(), to.prefix_len())
        .map(|route| route.table_id(table).protocol(PROTOCOL))
        .map_err(|e| ProviderError::Failed(format!("route to {to}: {e}")))
}

/// The table's number; the header has room for small ones only.
fn table(route: &RouteMessage) -> u32 {
    let long = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or(u32::from(route.header.table))
}

fn read(route: &RouteMessage) -> Option<(IpNet, IpAddr)> {
    let RouteHeader {
        destination_prefix_length: length,
        ..
    } = route.header;
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let (mut destination, mut gateway) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = address(to),
            RouteAttribute::Gateway(via) => gateway = address(via),
            _ => {}
        }
    }
    Some((IpNet::new(destination?, length).ok()?, gateway?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_goes_through_the_internal_address_of_its_family() {
        let addresses = [
            ("Hostname", "node1"),
            ("ExternalIP", "198.51.100.1"),
            ("InternalIP", "2001:db8::1"),
            ("InternalIP", "192.0.2.1"),
        ]
        .map(|(kind, address)| (kind.to_owned(), address.to_owned()));
        let via = |to: &str| gateway(&to.parse().unwrap(), &addresses);
        assert_eq!(via("10.1.0.0/24"), Ok("192.0.2.1".parse().unwrap()));
        assert_eq!(via("fd00:1::/64"), Ok("2001:db8::1".parse().unwrap()));
        assert!(gateway(&"10.1.0.0/24".parse().unwrap(), &addresses[..2]).is_err());
    }
}
