//! Mistakes people make in services, and the causes they are told.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::{defaults, validation};

fn read(spec: Value) -> Service {
    let mut service: Service =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).expect("a service");
    defaults::service(&mut service);
    defaults::address_families(&mut service, None, "IPv4");
    service
}

#[test]
fn mistakes_get_upstreams_causes() {
    let cases = [
        (json!({"ports": [{"port": 80}]}), vec![]),
        (json!({"clusterIP": "None"}), vec![]),
        (json!({}), vec!["spec.ports: Required value"]),
        (
            json!({"ports": [{"port": 0}]}),
            vec![
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            json!({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}),
            vec!["spec.ports[0].name: Required value"],
        ),
        (
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}),
            vec!["spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}"],
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            json!({"type": "Other", "ports": [{"port": 80}]}),
            vec![
                "spec.type: Unsupported value: \"Other\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ],
        ),
        (
            json!({"type": "ExternalName"}),
            vec!["spec.externalName: Required value"],
        ),
        (
            json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
            ],
        ),
        (
            json!({"clusterIP": "10.96.0.300", "ports": [{"port": 80}]}),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"10.96.0.300\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        ),
        (
            json!({"sessionAffinity": "Cookie", "ports": [{"port": 80}]}),
            vec![
                "spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\"",
            ],
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 100000}}, "ports": [{"port": 80}]}),
            vec![
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 100000: must be greater than 0 and less than 86400",
            ],
        ),
        (
            json!({"externalIPs": ["127.0.0.1"], "ports": [{"port": 80}]}),
            vec![
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        ),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.0/8"], "ports": [{"port": 80}]}),
            vec!["spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"],
        ),
    ];
    for (spec, expected) in cases {
        let found: Vec<String> = validation::service(&read(spec))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn the_address_stays() {
    let old = read(json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}));
    let mut new = read(json!({"clusterIP": "10.96.0.8", "ports": [{"port": 80}]}));
    let texts = |new: &Service| -> Vec<String> {
        validation::update(new, &old)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(
        texts(&new),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"]
    );
    new = read(
        json!({"type": "NodePort", "clusterIP": "10.96.0.7", "ports": [{"port": 80, "nodePort": 30001}]}),
    );
    assert_eq!(texts(&new), [""; 0]);
}
