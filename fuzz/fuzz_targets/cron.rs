//! A schedule is read or refused; the times that it gives lie ahead.

#![no_main]

use api::cron::{Schedule, time_zone};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (text, zone) = fuzz::halves(data).unwrap_or((data, b""));
    let (Ok(text), Ok(zone)) = (std::str::from_utf8(text), std::str::from_utf8(zone)) else {
        return;
    };
    let Ok(zone) = time_zone(zone) else {
        return;
    };
    if let Ok(schedule) = Schedule::parse(text) {
        let mut time = "2026-01-31T23:59:59.5Z".parse().expect("a time");
        for _ in 0..8 {
            let Some(next) = schedule.next(time, &zone) else {
                break;
            };
            assert!(next >= time, "{next} is before {time}");
            time = next;
        }
    }
});
