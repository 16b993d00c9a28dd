fn main(){
  for f in std::env::args().skip(1) { println!("{f} {:?}", ringtap::probe::tls::points(std::path::Path::new(&f))); }
  let mut k = ringtap::probe::kernel::Kernel::load(ringtap::probe::kernel::Settings{wanted:15,shards:1,ring_bytes:1<<24}).map_err(|e| e.to_string()).unwrap();
  k.start().map_err(|e| e.to_string()).unwrap();
  println!("{:?}", k.missing);
  let m = k.take_stream_maps().map_err(|e| e.to_string()).unwrap();
  for _ in 0..5 { std::thread::sleep(std::time::Duration::from_secs(1)); println!("{:?}", m.counters().named().into_iter().filter(|x| x.1>0).collect::<Vec<_>>()); }
}
