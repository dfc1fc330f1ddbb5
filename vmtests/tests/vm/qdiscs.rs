//! Queueing disciplines that few hosts have: packets go through them.

use std::net::UdpSocket;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{FAR, NEAR, Pair, run};

/// The shortest time that a datagram takes there and back.
fn round_trip() -> Duration {
    // The one who answers lives in the far network; threads have networks of their own.
    let (ready, at) = std::sync::mpsc::channel();
    let far = std::thread::spawn(move || {
        Pair::go_far();
        let socket = UdpSocket::bind((FAR, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        ready.send(socket.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 16];
        for _ in 0..5 {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..length], from).unwrap();
        }
    });
    let socket = UdpSocket::bind((NEAR, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let to = at.recv().unwrap();
    let once = || {
        let start = Instant::now();
        socket.send_to(&[1; 16], to).unwrap();
        socket.recv(&mut [0; 16]).unwrap();
        let took = start.elapsed();
        sleep(Duration::from_millis(5));
        took
    };
    let shortest = (0..5).map(|_| once()).min().unwrap();
    far.join().unwrap();
    shortest
}

#[test]
fn vm_netem_delays_what_goes_through_it() {
    let _pair = Pair::new();
    let plain = round_trip();
    let shown = Pair::qdisc("netem delay 200ms");
    assert!(shown.starts_with("qdisc netem") && shown.contains("delay 200"), "{shown}");
    let delayed = round_trip();
    assert!(plain < Duration::from_millis(150), "{plain:?} without a delay");
    assert!(delayed >= Duration::from_millis(200), "{delayed:?} with 200 ms of delay");
}

#[test]
fn vm_fq_passes_packets_and_counts_them() {
    let _pair = Pair::new();
    let shown = Pair::qdisc("fq");
    assert!(shown.starts_with("qdisc fq "), "{shown}");
    round_trip();
    let shown = run(&["tc", "-s", "qdisc", "show", "dev", "chadtest0"]);
    let sent = shown.split_once("bytes ").unwrap().1.split(' ').next().unwrap();
    assert!(sent.parse::<u32>().unwrap() >= 5, "{shown}");
}
