use std::io::Write;

use super::*;

fn pcap(magic: u32, link: u32, packets: &[(u32, u32, &[u8], u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [magic, 2 | 4 << 16, 0, 0, 65_535, link] {
        bytes.extend(word.to_le_bytes());
    }
    for (seconds, fraction, data, length) in packets {
        let kept = u32::try_from(data.len()).unwrap();
        for word in [*seconds, *fraction, kept, *length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(*data);
    }
    bytes
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes(), &length, body, &length].concat()
}

/// One interface with nanoseconds, one packet.
fn pcapng(ticks: u64, data: &[u8]) -> Vec<u8> {
    let section = [
        &0x1a2b_3c4d_u32.to_le_bytes()[..],
        &[1, 0, 0, 0],
        &[0xff; 8],
    ]
    .concat();
    let interface = [
        &[1, 0, 0, 0][..],
        &[0, 0, 1, 0],
        &[9, 0, 1, 0, 9, 0, 0, 0],
        &[0; 4],
    ]
    .concat();
    let length = u32::try_from(data.len()).unwrap();
    let mut packet = Vec::new();
    for word in [
        0,
        u32::try_from(ticks >> 32).unwrap(),
        u32::try_from(ticks & 0xffff_ffff).unwrap(),
        length,
        length,
    ] {
        packet.extend(word.to_le_bytes());
    }
    packet.extend(data);
    packet.resize(packet.len().next_multiple_of(4), 0);
    [
        block(0x0a0d_0d0a, &section),
        block(1, &interface),
        block(6, &packet),
    ]
    .concat()
}

fn read(bytes: &[u8]) -> Result<Vec<Captured>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let mut capture = Capture::open(file.path())?;
    let mut all = Vec::new();
    while let Some(captured) = capture.packet()? {
        all.push(captured);
    }
    assert!(capture.read <= capture.size);
    Ok(all)
}

const MICRO: u32 = 0xa1b2_c3d4;
const NANO: u32 = 0xa1b2_3c4d;

#[test]
fn both_precisions_of_pcap_and_pcapng_tell_the_same_time() {
    let frame = [7; 61];
    let expected = [Captured {
        time: Duration::new(1_700_000_000, 250_000_000),
        frame: frame.to_vec(),
    }];
    let micro = pcap(MICRO, 1, &[(1_700_000_000, 250_000, &frame, 61)]);
    let nano = pcap(NANO, 1, &[(1_700_000_000, 250_000_000, &frame, 61)]);
    assert_eq!(read(&micro).unwrap(), expected);
    assert_eq!(read(&nano).unwrap(), expected);
    let ng = pcapng(1_700_000_000_250_000_000, &frame);
    assert_eq!(read(&ng).unwrap(), expected);
}

#[test]
fn what_the_snap_length_cut_off_is_zero_again() {
    let bytes = pcap(MICRO, 1, &[(1, 0, &[7; 20], 60)]);
    let frame = read(&bytes).unwrap().remove(0).frame;
    assert_eq!((frame.len(), frame[19], frame[20]), (60, 7, 0));
}

#[test]
fn packets_without_a_link_layer_are_given_one() {
    let v6 = [0x60, 0, 0, 0];
    let bytes = pcap(MICRO, 101, &[(1, 0, &[0x45, 0], 2), (2, 0, &v6, 4)]);
    let frames = read(&bytes).unwrap();
    assert_eq!(frames[0].frame[12..], [0x08, 0x00, 0x45, 0]);
    assert_eq!(frames[1].frame[12..], [0x86, 0xdd, 0x60, 0, 0, 0]);
    let mut cooked = vec![0; 14];
    cooked.extend([0x08, 0x00, 0x45]);
    let bytes = pcap(MICRO, 113, &[(1, 0, &cooked, 17)]);
    assert_eq!(read(&bytes).unwrap()[0].frame[12..], [0x08, 0x00, 0x45]);
    let mut cooked = vec![0x86, 0xdd];
    cooked.extend([0; 18]);
    cooked.push(0x60);
    let bytes = pcap(MICRO, 276, &[(1, 0, &cooked, 21)]);
    assert_eq!(read(&bytes).unwrap()[0].frame[12..], [0x86, 0xdd, 0x60]);
    let short = pcap(MICRO, 276, &[(1, 0, &cooked[..19], 21)]);
    assert!(
        read(&short)
            .unwrap_err()
            .to_string()
            .contains("without its link header")
    );
}

#[test]
fn a_capture_that_was_cut_off_ends_there() {
    let bytes = pcap(MICRO, 1, &[(1, 0, &[7; 60], 60), (2, 0, &[8; 60], 60)]);
    assert_eq!(read(&bytes[..bytes.len() - 5]).unwrap().len(), 1);
    for (end, cut) in [(bytes.len(), false), (bytes.len() - 5, true)] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes[..end]).unwrap();
        let mut capture = Capture::open(file.path()).unwrap();
        while capture.packet().unwrap().is_some() {}
        assert_eq!(capture.cut, cut, "{end}");
    }
}

#[test]
fn what_is_no_capture_is_the_operators_mistake() {
    for (bytes, why) in [
        (&b""[..], "it is empty"),
        (
            b"GET / HTTP/1.1\r\n\r\n and so on, long enough",
            "neither pcap nor pcapng",
        ),
        (&[0x1f, 0x8b, 8, 0, 0], "gunzip"),
        (&pcap(MICRO, 105, &[]), "link type 105"),
    ] {
        let error = read(bytes).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(why), "{error}");
    }
    let error = Capture::open(Path::new("/nonexistent.pcap")).err().unwrap();
    assert!(error.to_string().contains("/nonexistent.pcap"), "{error}");
}
