fn main() {
    let s = auditor::collect::collect(&Default::default()).unwrap();
    println!("{}", serde_json::to_string_pretty(&s).unwrap());
}
