//! Where a name may lead (SEMANTICS 5.6): resolved once per connection, checked, and connected to exactly that address, so
//! that a name cannot point elsewhere between check and use.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// True for addresses that lead into the machine or its own networks, in every spelling that carries one.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || a == 0
        || a >= 240
        // Carrier-grade NAT, protocol assignments, benchmarking: never a public endpoint.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    let prefix_zero = s[..5] == [0; 5];
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || (s[0] & 0xfe00) == 0xfc00
        || (s[0] & 0xffc0) == 0xfe80
        || (s[0] & 0xffc0) == 0xfec0
        // IPv4 inside IPv6: mapped, compatible, NAT64, 6to4; Teredo hides its address, so it is refused.
        || (prefix_zero && (s[5] == 0xffff || s[5] == 0) && embedded(s[6], s[7]))
        || (s[0] == 0x64 && s[1] == 0xff9b && embedded(s[6], s[7]))
        || (s[0] == 0x2002 && embedded(s[1], s[2]))
        || (s[0] == 0x2001 && s[1] == 0)
}

/// Turns a name into addresses; the system's resolver unless a test brings its own.
#[async_trait]
pub trait Lookup: Send + Sync {
    async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver.
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.collect())
    }
}

/// A name led to an address that it may not lead to.
#[derive(Debug)]
pub struct PrivateAddress {
    name: String,
    address: IpAddr,
}

impl fmt::Display for PrivateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} resolves to {}, a private, loopback or link-local address; write the address itself, or \"allow_private\": true",
            self.name, self.address
        )
    }
}

impl std::error::Error for PrivateAddress {}

/// Resolves for the client and refuses before anything is connected. One private address among several is enough.
pub struct CheckedResolver {
    pub lookup: Arc<dyn Lookup>,
    pub allow_private: bool,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, allow_private) = (Arc::clone(&self.lookup), self.allow_private);
        Box::pin(async move {
            let addresses = lookup.lookup(name.as_str()).await?;
            let private = addresses.iter().map(SocketAddr::ip).find(|address| is_private(*address));
            if let Some(address) = private.filter(|_| !allow_private) {
                return Err(PrivateAddress { name: name.as_str().to_owned(), address }.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t6_private_addresses_in_every_spelling() {
        let private = [
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.0.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fdff::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.1.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001::1",
        ];
        for text in private {
            assert!(is_private(text.parse().expect(text)), "{text}");
        }
        let public = [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "198.20.0.1",
            "2606:4700::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ];
        for text in public {
            assert!(!is_private(text.parse().expect(text)), "{text}");
        }
    }
}
