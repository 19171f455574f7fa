//! Flags and wishes become cards; the guest is told what it needs.

use super::*;

fn cards(net: &[&str], publish: &[&str], wishes: &Wishes) -> Result<Vec<Card>, String> {
    let args = NetArgs {
        net: net.iter().map(|text| text.parse().unwrap()).collect(),
        publish: publish.iter().map(|text| text.parse().unwrap()).collect(),
        pcap: None,
    };
    resolve(&args, wishes).map_err(|error| error.to_string())
}

fn records(net: &[&str]) -> Vec<String> {
    let cards = cards(net, &[], &Wishes::default()).unwrap();
    cards.into_iter().map(|card| card.record).collect()
}

const DEFAULT: &str =
    ";ip=10.0.2.15/24;ip=fd00::15/64;gw=10.0.2.2;gw=fd00::2;dns=10.0.2.3;dns=fd00::3";

#[test]
fn the_guest_is_told_its_addresses() {
    assert_eq!(records(&[]), [DEFAULT]);
    assert_eq!(records(&["user"]), [DEFAULT]);
    assert!(records(&["none"]).is_empty());
    assert_eq!(
        records(&["user,ip=192.168.7.2/24,dns=9.9.9.9"]),
        [";ip=192.168.7.2/24;ip=fd00::15/64;gw=192.168.7.3;gw=fd00::2;dns=9.9.9.9"]
    );
    assert_eq!(
        records(&["user,ip=dhcp,gw=fd00::3"]),
        [";ip=dhcp;ip=fd00::15/64;gw=fd00::3;dns=fd00::2"]
    );
    assert_eq!(
        records(&["tap=a", "tap=b,ip=10.1.0.5/16,gw=10.1.0.1"]),
        ["", ";ip=10.1.0.5/16;gw=10.1.0.1"]
    );
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    for bad in [
        "user,ip=10.0.0.0/24",
        "user,ip=10.0.0.255/24",
        "user,ip=10.0.0.1/31",
        "user,ip=fd00::5/48",
        "user,gw=1.2.3.4",
        "user,gw=10.0.2.15",
    ] {
        let error = cards(&[bad], &[], &Wishes::default()).unwrap_err();
        assert!(
            error.starts_with("cannot make the user network: "),
            "{error}"
        );
    }
}

#[test]
fn ports_go_to_the_first_user_network_and_flags_win() {
    let forwards = |cards: Vec<Card>| -> Vec<usize> {
        let count = |card: &Card| match &card.backend {
            Backend::User(config) => config.forwards.len(),
            Backend::Tap(_) => 0,
        };
        cards.iter().map(count).collect()
    };
    let wishes = Wishes {
        net: vec!["user,mtu=9000".parse().unwrap()],
        publish: vec!["1:1".parse().unwrap(), "2:2".parse().unwrap()],
    };
    let wished = cards(&[], &[], &wishes).unwrap();
    assert_eq!(wished[0].mtu, Some(9000));
    assert_eq!(forwards(wished), [2]);
    let told = cards(&["tap=a", "user", "user"], &["8080:80"], &wishes).unwrap();
    assert_eq!(forwards(told), [0, 1, 0]);
    assert!(cards(&["none"], &[], &wishes).unwrap().is_empty());
    assert!(cards(&["tap=a"], &["8080:80"], &Wishes::default()).is_err());
}
