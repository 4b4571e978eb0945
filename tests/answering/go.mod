module answering

go 1.19
