#!/bin/bash
# How long does connect() try where nobody answers, and how often?
ip netns add client
ip netns add server
ip link add eth0 netns client type veth peer name eth0 netns server
ip -n client addr add 10.0.0.1/24 dev eth0
ip -n server addr add 10.0.0.2/24 dev eth0
ip -n client link set eth0 up
ip -n server link set eth0 up
ip netns exec server nft -f - << END
table ip t { chain in { type filter hook input priority 0; tcp dport 80 counter drop; }; }
END
ip netns exec client bash -c ': < /dev/tcp/10.0.0.2/80; echo "gave up after $SECONDS s"' 2> /dev/null
ip netns exec server nft list ruleset | grep -o 'packets [0-9]*'
