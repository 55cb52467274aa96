fn main() {
    println!("{}", wsmon::kernel::OBJECT.len());
}
