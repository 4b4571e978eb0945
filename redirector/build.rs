fn main(){ println!("cargo:rustc-env=REDIRECTOR_EBPF_OBJECT=/work/main/target/ebpf/redirector.o"); }
