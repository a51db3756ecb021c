use super::*;

const TEXT: &str = r#"
apiVersion: v1
kind: Config
preferences: {}
current-context: c
clusters:
- name: k
  cluster:
    server: https://10.0.0.1:6443
    certificate-authority: pki/ca.crt
    unknown: ignored
users:
- name: u
  user:
    client-certificate-data: YQ==
    client-key: /abs/key.pem
- name: t
  user:
    tokenFile: token
    as: alice
    as-groups: [dev]
contexts:
- name: c
  context: {cluster: k, user: u}
- name: d
  context: {cluster: k, user: t, namespace: ns}
- name: broken
  context: {cluster: none, user: u}
"#;

fn load(text: &str) -> Kubeconfig {
    let name = format!("ferrokube-kubeconfig-{}-{:p}", std::process::id(), text);
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).unwrap();
    let config = Kubeconfig::load(&path);
    std::fs::remove_file(&path).unwrap();
    config.unwrap()
}

#[test]
fn contexts_become_configs() {
    let file = load(TEXT);
    let c = file.config(None).unwrap();
    assert_eq!(c.server, "https://10.0.0.1:6443");
    assert_eq!(
        c.certificate_authority,
        Some(Pem::File(std::env::temp_dir().join("pki/ca.crt")))
    );
    assert_eq!(
        c.client_certificate,
        Some((Pem::Data(b"a".to_vec()), Pem::File("/abs/key.pem".into())))
    );
    assert_eq!(c.namespace, "default");

    let d = file.config(Some("d")).unwrap();
    assert_eq!(d.namespace, "ns");
    assert!(matches!(d.auth, Auth::TokenFile(p) if p == std::env::temp_dir().join("token")));
    assert_eq!(d.impersonate.unwrap().groups, ["dev"]);
}

#[test]
fn what_is_missing_is_named() {
    let file = load(TEXT);
    let err = file.config(Some("broken")).unwrap_err().to_string();
    assert_eq!(err, r#"kubeconfig: cluster "none" does not exist"#);
    let err = file.config(Some("x")).unwrap_err().to_string();
    assert_eq!(err, r#"kubeconfig: context "x" does not exist"#);
}

#[test]
fn secrets_are_not_shown() {
    let mut config = Config::new("https://x");
    config.auth = Auth::Token("s3cret".into());
    config.client_certificate =
        Some((Pem::Data(b"s3cret".to_vec()), Pem::Data(b"s3cret".to_vec())));
    assert!(!format!("{config:?}").contains("s3cret"));
}
