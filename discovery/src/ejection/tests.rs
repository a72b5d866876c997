use super::*;

#[test]
fn five_consecutive_failures_eject() {
    let record = Record::default();
    let ejected: Vec<_> = (0..4).map(|_| record.responded(false)).collect();
    assert_eq!(ejected, [false; 4]);
    assert!(!record.responded(true), "a success resets the count");
    let ejected: Vec<_> = (0..5).map(|_| record.responded(false)).collect();
    assert_eq!(ejected, [false, false, false, false, true]);
}

#[test]
fn ejection_time_doubles_up_to_the_maximum() {
    let record = Record::default();
    for times in 0..10 {
        let time = record.eject(Ejection::Failing).unwrap();
        let longest = (BASE_EJECTION_TIME * (1 << times)).min(MAX_EJECTION_TIME);
        assert!(
            time <= longest && time >= longest.mul_f64(0.8),
            "{time:?} of {longest:?}"
        );
        assert_eq!(record.eject(Ejection::Silent), None, "once is enough");
        assert!(!record.is_ejection_expired());
        let why = record.ejected().map(|(why, _)| why);
        assert_eq!(why, Some(Ejection::Failing));
        let unejected = [(); 2].map(|()| record.uneject(Instant::now()));
        assert_eq!(unejected, [true, false]);
    }
}

#[test]
fn changes_increase_the_version() {
    let service = Arc::<ServiceState>::default();
    let record = Record::new(service.clone());
    record.eject(Ejection::Unreachable);
    record.eject(Ejection::Unreachable);
    record.uneject(Instant::now());
    record.uneject(Instant::now());
    assert_eq!(service.version(), 2);
    let address = ([10, 0, 0, 1], 80).into();
    let changed = [true, true, false, false].map(|drained| service.set_drained(address, drained));
    assert_eq!(changed, [true, false, true, false]);
    assert_eq!(service.version(), 4);
    let ejections = Ejection::ALL.map(|why| service.ejections(why));
    assert_eq!(ejections, [1, 0, 0, 0]);
}

#[test]
fn an_ejection_expires() {
    let record = Record::default();
    assert!(!record.is_ejection_expired(), "it is not ejected");
    record.eject(Ejection::Silent).unwrap();
    assert!(!record.is_ejection_expired());
    record.state().until = Some(Instant::now());
    assert!(record.is_ejection_expired());
    record.uneject(Instant::now());
    assert!(!record.is_ejection_expired());
}

#[test]
fn older_successes_do_not_uneject() {
    let (record, before) = (Record::default(), Instant::now());
    record.eject(Ejection::Unreachable).unwrap();
    assert!(!record.uneject(before));
    let (_, since) = record.ejected().unwrap();
    assert!(record.uneject(since));
    assert_eq!(record.successes(), 2);
}

#[test]
fn ejection_time_resets_after_a_minute_up() {
    let record = Record::default();
    for up_for in [
        Duration::ZERO,
        MAX_EJECTION_TIME,
        MAX_EJECTION_TIME + BASE_EJECTION_TIME,
    ] {
        record.eject(Ejection::Failing).unwrap();
        record.uneject(Instant::now());
        record.state().until = Instant::now().checked_sub(up_for);
    }
    let time = record.eject(Ejection::Failing).unwrap();
    assert!(time <= BASE_EJECTION_TIME, "{time:?}");
}

#[test]
fn responses_and_checks_count_as_successes() {
    let [requested, checked] = [Record::default(), Record::default()];
    requested.responded(false);
    assert_eq!([requested.successes(), checked.successes()], [0, 0]);
    requested.responded(true);
    checked.uneject(Instant::now());
    assert_eq!([requested.successes(), checked.successes()], [1, 1]);
}

#[test]
fn a_reason_is_one_word() {
    let words = Ejection::ALL.map(|reason| reason.to_string());
    assert_eq!(words, ["unreachable", "silent", "failing", "timeout"]);
}

/// Returns a record whose ejection for this reason has expired.
fn expired(why: Ejection) -> Record {
    let record = Record::default();
    record.eject(why).unwrap();
    record.expire();
    record
}

#[test]
fn timeouts_and_failures_are_counted_together() {
    let (record, begun) = (Record::default(), Instant::now());
    let failures = [
        record.timed_out(begun),
        record.responded(false),
        record.timed_out(begun),
        record.responded(false),
    ];
    assert_eq!(failures, [false; 4]);
    assert!(record.timed_out(begun));
    record.responded(true);
    assert!(!record.timed_out(begun), "a success service from zero");
}

#[test]
fn health_checks_of_an_up_endpoint_do_not_reset() {
    let (record, begun) = (Record::default(), Instant::now());
    let failures: Vec<_> = (0..5)
        .map(|_| {
            record.uneject(Instant::now());
            record.timed_out(begun)
        })
        .collect();
    assert_eq!(failures, [false, false, false, false, true]);
}

#[test]
fn timeouts_from_before_the_end_do_not_count() {
    let (record, before) = (Record::default(), Instant::now());
    record.eject(Ejection::Timeout);
    record.uneject(Instant::now());
    let failures = [(); 9].map(|()| record.timed_out(before));
    assert_eq!(failures, [false; 9]);
    let after = Instant::now();
    let failures = [(); 5].map(|()| record.timed_out(after));
    assert_eq!(failures, [false, false, false, false, true]);
}

#[test]
fn a_half_open_endpoint_has_one_probe_at_a_time() {
    for why in Ejection::ALL {
        let record = Record::default();
        record.half_open();
        assert_eq!(record.begin_probe(), None, "it is up");
        record.eject(why).unwrap();
        record.half_open();
        assert_eq!(record.begin_probe(), None, "not expired");
        let record = expired(why);
        assert_eq!(record.begin_probe(), None, "it is not half-open");
        record.half_open();
        let probe = record.begin_probe().unwrap();
        record.half_open();
        assert_eq!(record.begin_probe(), None, "one is enough");
        record.probe_ended(probe);
        assert_eq!(record.begin_probe(), Some(probe));
        assert!(record.uneject(Instant::now()));
        record.probe_ended(probe);
        assert!(record.ejected().is_none() && record.waits_for_probe().is_none());
    }
}

#[test]
fn a_failed_probe_doubles_the_time_only() {
    let (service, now) = (Arc::<ServiceState>::default(), Instant::now());
    let record = Record::new(service.clone());
    record.eject(Ejection::Failing).unwrap();
    for times in 1..9 {
        record.state().until = Some(now);
        record.half_open();
        let probe = record.begin_probe().unwrap();
        let time = record.probe_failed(probe, Ejection::Timeout).unwrap();
        let limit = (BASE_EJECTION_TIME * (1 << times)).min(MAX_TIMEOUT_EJECTION_TIME);
        assert!(time <= limit && time >= limit.mul_f64(0.8), "{time:?}");
        assert_eq!(record.probe_failed(probe, Ejection::Timeout), None);
        assert_eq!(record.begin_probe(), None);
    }
    let unhedged_from = record.state().unhedged_from.unwrap();
    assert!(unhedged_from > now + MAX_EJECTION_TIME.mul_f64(0.8));
    let ejections = Ejection::ALL.map(|why| service.ejections(why));
    assert_eq!(ejections, [0, 0, 1, 0]);
}

#[test]
fn drained_addresses_expire_after_a_day() {
    let (service, now) = (ServiceState::default(), Instant::now());
    let [one, two] = [1, 2].map(|port| ([10, 0, 0, 1], port).into());
    service.set_drained(one, true);
    service.set_drained(two, true);
    let later = [0.0, 0.9, 1.1].map(|days| now + DRAIN_RETENTION.mul_f64(days));
    for (time, remaining) in later.into_iter().zip([true, true, false]) {
        service.update_registered(time, |address| address == two);
        assert_eq!(service.is_drained(one), remaining);
        assert_eq!(
            service.drained_unregistered(),
            [one; 1][..usize::from(remaining)]
        );
    }
    assert!(service.is_drained(two));
    service.update_registered(later[0], |_| false);
    assert_eq!(service.drained_unregistered(), [two]);
    service.update_registered(later[2], |_| true);
    assert!(service.is_drained(two) && service.drained_unregistered().is_empty());
}
