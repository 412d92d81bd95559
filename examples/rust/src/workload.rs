// What the programs with a heap of their own run: collections, and threads that free what others
// allocated. Every result is compared with what arithmetic says.

use mm::Cpu;
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

const THREADS: u64 = 8;

fn vectors() -> String {
    let mut numbers: Vec<u64> = (0..100_000).map(|i| i * 7919 % 100_003).collect();
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    numbers.truncate(10);
    numbers.shrink_to_fit();
    format!("Vec: 100000 numbers sorted, the first {:?}", &numbers[..4])
}

fn strings() -> String {
    let mut text = String::new();
    for i in 0..10_000 {
        text += &format!("{i} ");
    }
    let sum: u64 = text.split_whitespace().map(|word| word.parse::<u64>().unwrap()).sum();
    assert_eq!(sum, 9_999 * 10_000 / 2);
    format!("String: {} bytes, the numbers in it make {sum}", text.len())
}

fn maps() -> String {
    let mut map = BTreeMap::new();
    for i in 0..20_000u64 {
        map.insert(i * 31 % 20_011, vec![i; (i % 17) as usize]);
    }
    map.retain(|key, _| key % 3 == 0);
    assert!(map.iter().all(|(_, values)| values.iter().all(|v| v % 17 == values.len() as u64)));
    format!("BTreeMap: {} of 20000 entries left", map.len())
}

/// Each thread sends boxes to the next one, which frees them.
fn threads() -> String {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
    let handles: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(i, receiver)| {
            let next = senders[(i + 1) % senders.len()].clone();
            thread::spawn(move || {
                let _cpu = Cpu::claim();
                for n in 0..5_000usize {
                    next.send(vec![i as u64; n % 300]).unwrap();
                }
                drop(next);
                receiver.iter().map(|v| v.iter().sum::<u64>()).sum::<u64>()
            })
        })
        .collect();
    drop(senders);
    let sum: u64 = handles.into_iter().map(|handle| handle.join().unwrap()).sum();
    let elements: u64 = (0..5_000).map(|n| n % 300).sum();
    assert_eq!(sum, elements * THREADS * (THREADS - 1) / 2);
    format!("{THREADS} threads: {} vectors freed by others", THREADS * 5_000)
}

/// Runs all of it twice: the heap must hold no more after the second time.
pub fn prove(used: impl Fn() -> u64, is_healthy: impl Fn() -> bool) {
    let run = || {
        let _cpu = Cpu::claim();
        [vectors(), strings(), maps(), threads()]
    };
    for line in run() {
        println!("{line}");
    }
    let first = used();
    drop(run());
    assert_eq!(used(), first, "leaked");
    assert!(is_healthy());
    println!("healthy, nothing leaked");
}
