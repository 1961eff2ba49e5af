//! Where the `kubernetes` service leads: to every server that is alive.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice,
};
use keelson_api::status::ApiResult;

use crate::authentication::User;
use crate::state::Server;

use super::{NAMESPACE, SERVICE, created, meta};

/// What the port is called.
const PORT_NAME: &str = "https";

/// Lets the endpoints say just these addresses.
pub(super) async fn write(server: &Arc<Server>, living: &BTreeSet<IpAddr>) -> ApiResult<()> {
    let port = i32::from(server.config.secure_port);
    endpoints(server, subsets(living, port)).await?;
    // A slice has addresses of one family.
    let ipv6 = server.config.advertised().is_ipv6();
    let family: Vec<IpAddr> = living.iter().copied().filter(|a| a.is_ipv6() == ipv6).collect();
    slice(server, &family, port, if ipv6 { "IPv6" } else { "IPv4" }).await
}

fn subsets(living: &BTreeSet<IpAddr>, port: i32) -> Vec<EndpointSubset> {
    let address = |ip: &IpAddr| EndpointAddress {
        ip: ip.to_string(),
        ..EndpointAddress::default()
    };
    vec![EndpointSubset {
        addresses: Some(living.iter().map(address).collect()),
        ports: Some(vec![EndpointPort {
            name: Some(PORT_NAME.into()),
            port,
            protocol: Some("TCP".into()),
            ..EndpointPort::default()
        }]),
        ..EndpointSubset::default()
    }]
}

async fn endpoints(server: &Arc<Server>, subsets: Vec<EndpointSubset>) -> ApiResult<()> {
    let Some(found) = server.cached::<Endpoints>(NAMESPACE, SERVICE) else {
        let endpoints = Endpoints {
            metadata: meta(&[("endpointslice.kubernetes.io/skip-mirror", "true")]),
            subsets: Some(subsets),
        };
        return created(server.create(&endpoints).await);
    };
    if found.subsets.as_ref() == Some(&subsets) {
        return Ok(());
    }
    let change = |endpoints: &mut Endpoints| {
        endpoints.subsets = Some(subsets.clone());
        Ok(())
    };
    let place = (NAMESPACE, SERVICE, "");
    server.update(&User::loopback(), place, change).await.map(drop)
}

async fn slice(server: &Arc<Server>, addresses: &[IpAddr], port: i32, family: &str) -> ApiResult<()> {
    let endpoint = |address: &IpAddr| Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(true),
            ..EndpointConditions::default()
        }),
        ..Endpoint::default()
    };
    let endpoints: Vec<Endpoint> = addresses.iter().map(endpoint).collect();
    let ports = vec![SlicePort {
        name: Some(PORT_NAME.into()),
        port: Some(port),
        protocol: Some("TCP".into()),
        ..SlicePort::default()
    }];
    let Some(found) = server.cached::<EndpointSlice>(NAMESPACE, SERVICE) else {
        let slice = EndpointSlice {
            metadata: meta(&[("kubernetes.io/service-name", SERVICE)]),
            address_type: family.to_owned(),
            endpoints: Some(endpoints),
            ports: Some(ports),
        };
        return created(server.create(&slice).await);
    };
    if found.endpoints.as_ref() == Some(&endpoints) && found.ports.as_ref() == Some(&ports) {
        return Ok(());
    }
    let change = |slice: &mut EndpointSlice| {
        slice.endpoints = Some(endpoints.clone());
        slice.ports = Some(ports.clone());
        Ok(())
    };
    let place = (NAMESPACE, SERVICE, "");
    server.update(&User::loopback(), place, change).await.map(drop)
}
