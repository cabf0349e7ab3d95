//! Who calls and what the caller may do. Deny by default: a call without a permission in the inventory does not exist.

use axum::http::{HeaderMap, StatusCode, Uri, header};

use super::problem::Problem;
use crate::config::{Role, TokenEntry, codes};

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Probes: nobody is asked.
    Open,
    /// Any known caller.
    Known,
    Read,
    Publish,
    /// Waiting for a view after publishing.
    Follow,
    Operate,
}

impl Permission {
    fn allows(self, role: Role) -> bool {
        match (self, role) {
            (Permission::Open | Permission::Known, _) | (_, Role::Admin | Role::Operator) => true,
            (Permission::Read | Permission::Follow, Role::Viewer) => true,
            (Permission::Publish | Permission::Follow, Role::Ingest) => true,
            (_, Role::Viewer | Role::Ingest) => false,
        }
    }

    /// Least roles that have it, for messages.
    pub fn roles(self) -> &'static str {
        match self {
            Permission::Open => "anybody",
            Permission::Known => "any role",
            Permission::Read => "viewer, operator or admin",
            Permission::Publish => "ingest, operator or admin",
            Permission::Follow => "viewer, ingest, operator or admin",
            Permission::Operate => "operator or admin",
        }
    }
}

/// Who makes a call; recorded with what the call does.
#[derive(Clone, Debug)]
pub struct Caller {
    pub name: String,
    /// True where tokens are set and the caller showed a known one, or where none are set.
    pub is_known: bool,
}

/// The tokens of gravity.toml, by digest: comparing digests takes the same time whatever the caller sends.
pub struct Callers {
    entries: Vec<(blake3::Hash, String, Role)>,
}

impl Callers {
    pub fn new(tokens: &[TokenEntry]) -> Callers {
        let entry = |t: &TokenEntry| (blake3::hash(t.token.expose().as_bytes()), t.name.clone(), t.role);
        Callers { entries: tokens.iter().map(entry).collect() }
    }

    /// The caller of a request, if it may do what needs `permission`.
    pub fn admit(&self, permission: Permission, headers: &HeaderMap, uri: &Uri) -> Result<Caller, Problem> {
        if self.entries.is_empty() {
            // This machine is trusted, a stranger's page in a browser on it is not. Probes change and tell nothing.
            if permission != Permission::Open {
                from_this_machine(headers, uri)?;
            }
            return Ok(Caller { name: "local".to_owned(), is_known: true });
        }
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
        let digest = token.map(|token| blake3::hash(token.as_bytes()));
        let known = digest.and_then(|digest| self.entries.iter().find(|(known, ..)| *known == digest));
        match known {
            Some((_, name, role)) if permission.allows(*role) => Ok(Caller { name: name.clone(), is_known: true }),
            Some((_, name, role)) if permission != Permission::Open => {
                let detail = format!("`{name}` is {role}; this call needs {}", permission.roles());
                Err(Problem::new(StatusCode::FORBIDDEN, codes::FORBIDDEN, detail))
            }
            None if permission != Permission::Open => {
                let detail = if token.is_some() { "the token is not known" } else { "this call needs a bearer token" };
                Err(Problem::new(StatusCode::UNAUTHORIZED, codes::UNAUTHORIZED, detail))
            }
            _ => Ok(Caller { name: "probe".to_owned(), is_known: false }),
        }
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Refuses what a browser sends for a page of another origin, and names that were made to point here.
fn from_this_machine(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let refuse = |what: String| Err(Problem::new(StatusCode::FORBIDDEN, codes::CROSS_ORIGIN, what));
    let host = match headers.get(header::HOST) {
        Some(value) => value.to_str().unwrap_or("?"),
        None => uri.authority().map_or("", |authority| authority.as_str()),
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if !loopback {
        return refuse(format!("the call is addressed to {host:?}, which is no loopback name"));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("?");
        if origin != format!("http://{host}") && origin != format!("https://{host}") {
            return refuse(format!("the call comes from a page of {origin:?}"));
        }
    }
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return refuse("the call comes from a page of another site".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn callers() -> Callers {
        let entry =
            |name: &str, role| TokenEntry { name: name.to_owned(), role, token: Secret::new(format!("{name}-token")) };
        Callers::new(&[
            entry("v", Role::Viewer),
            entry("i", Role::Ingest),
            entry("o", Role::Operator),
            entry("a", Role::Admin),
        ])
    }

    fn status(permission: Permission, token: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"));
        }
        callers().admit(permission, &headers, &Uri::from_static("/")).map_or_else(|problem| problem.status, |_| 200)
    }

    #[test]
    fn o51_the_whole_matrix_of_roles() {
        use Permission::{Follow, Known, Open, Operate, Publish, Read};
        for (permission, want) in [
            (Open, [200, 200, 200, 200, 200, 200]),
            (Known, [401, 401, 200, 200, 200, 200]),
            (Read, [401, 401, 200, 403, 200, 200]),
            (Publish, [401, 401, 403, 200, 200, 200]),
            (Follow, [401, 401, 200, 200, 200, 200]),
            (Operate, [401, 401, 403, 403, 200, 200]),
        ] {
            let tokens = [None, Some("wrong"), Some("v-token"), Some("i-token"), Some("o-token"), Some("a-token")];
            assert_eq!(tokens.map(|token| status(permission, token)), want, "{permission:?}");
        }
    }

    #[test]
    fn without_tokens_a_strangers_page_is_refused() {
        let open = Callers::new(&[]);
        let admit = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().expect("a header"));
            }
            open.admit(Permission::Publish, &headers, &Uri::from_static("/")).map(|_| ()).map_err(|p| p.status)
        };
        assert_eq!(admit(&[("host", "127.0.0.1:7420")]), Ok(()));
        assert_eq!(admit(&[("host", "[::1]:7420")]), Ok(()));
        assert_eq!(admit(&[("host", "localhost:7420"), ("origin", "http://localhost:7420")]), Ok(()));
        assert_eq!(admit(&[("host", "evil.example:7420")]), Err(403));
        assert_eq!(admit(&[("host", "127.0.0.1:7420"), ("origin", "https://evil.example")]), Err(403));
        assert_eq!(admit(&[("host", "127.0.0.1:7420"), ("origin", "null")]), Err(403));
        assert_eq!(admit(&[("host", "127.0.0.1:7420"), ("sec-fetch-site", "cross-site")]), Err(403));
    }
}
