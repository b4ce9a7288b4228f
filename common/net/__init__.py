"""Generic event-loop kit: loop, timers, sockets, dialling, names. It has never heard of Shadowsocks."""
