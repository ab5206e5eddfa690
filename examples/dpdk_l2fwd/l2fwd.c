/* A small layer 2 forwarder on DPDK, as somebody might write one: port 0 is the customers' side.
 *
 * From port 0: UDP to the ports 16384-32767 (voice) leaves by port 1; every other IPv4 packet leaves by one of the ports
 * from 2 on, which its flow's hash chooses; what is not IPv4 leaves by every port, the one it came from too.
 * From any other port: everything leaves by port 0. With "lose-some" it has a fault: it loses every fourth packet.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_jhash.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_pause.h>
#include <rte_udp.h>

#define BURST 32
#define BUFFERS 8191
#define VOICE 1
#define FIRST_WORKER 2

static volatile int running = 1;
static uint16_t ports;
static int faulty;

static void stop(int number)
{
	(void)number;
	running = 0;
}

static int start_port(uint16_t port, struct rte_mempool *pool)
{
	struct rte_eth_conf conf;

	memset(&conf, 0, sizeof(conf));
	if (rte_eth_dev_configure(port, 1, 1, &conf) < 0 ||
	    rte_eth_rx_queue_setup(port, 0, 512, rte_eth_dev_socket_id(port), NULL, pool) < 0 ||
	    rte_eth_tx_queue_setup(port, 0, 512, rte_eth_dev_socket_id(port), NULL) < 0 ||
	    rte_eth_dev_start(port) < 0)
		return -1;
	rte_eth_promiscuous_enable(port);
	return 0;
}

static void send_one(uint16_t port, struct rte_mbuf *packet)
{
	if (rte_eth_tx_burst(port, 0, &packet, 1) == 0)
		rte_pktmbuf_free(packet);
}

static void send_all(struct rte_mbuf *packet, struct rte_mempool *pool)
{
	for (uint16_t port = 1; port < ports; port++) {
		struct rte_mbuf *copy = rte_pktmbuf_copy(packet, pool, 0, UINT32_MAX);

		if (copy != NULL)
			send_one(port, copy);
	}
	send_one(0, packet);
}

static uint16_t choose(const struct rte_ipv4_hdr *ip)
{
	const struct rte_udp_hdr *udp = (const void *)((const char *)ip + rte_ipv4_hdr_len(ip));
	uint32_t words[3] = { ip->src_addr, ip->dst_addr, 0 };

	if (ip->next_proto_id == IPPROTO_UDP || ip->next_proto_id == IPPROTO_TCP) {
		uint16_t to = rte_be_to_cpu_16(udp->dst_port);

		if (ip->next_proto_id == IPPROTO_UDP && to >= 16384 && to <= 32767)
			return VOICE;
		words[2] = (uint32_t)udp->src_port << 16 | udp->dst_port;
	}
	return FIRST_WORKER + rte_jhash_32b(words, 3, ip->next_proto_id) % (ports - FIRST_WORKER);
}

static void handle(uint16_t from, struct rte_mbuf *packet, struct rte_mempool *pool)
{
	static unsigned int seen;
	const struct rte_ether_hdr *frame = rte_pktmbuf_mtod(packet, const struct rte_ether_hdr *);

	if (frame->ether_type == rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4) && faulty && ++seen % 4 == 0)
		rte_pktmbuf_free(packet);
	else if (from != 0)
		send_one(0, packet);
	else if (frame->ether_type != rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4))
		send_all(packet, pool);
	else
		send_one(choose((const void *)(frame + 1)), packet);
}

static int forward(void *argument)
{
	struct rte_mempool *pool = argument;
	struct rte_mbuf *packets[BURST];

	while (running) {
		for (uint16_t port = 0; port < ports; port++) {
			uint16_t count = rte_eth_rx_burst(port, 0, packets, BURST);

			for (uint16_t number = 0; number < count; number++)
				handle(port, packets[number], pool);
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	int used = rte_eal_init(argc, argv);
	struct rte_mempool *pool;

	if (used < 0)
		rte_exit(EXIT_FAILURE, "the EAL refuses\n");
	faulty = argc > used + 1 && strcmp(argv[used + 1], "lose-some") == 0;
	ports = rte_eth_dev_count_avail();
	if (ports <= FIRST_WORKER)
		rte_exit(EXIT_FAILURE, "at least %d ports are needed, and there are %u\n", FIRST_WORKER + 1, ports);
	pool = rte_pktmbuf_pool_create("packets", BUFFERS, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, rte_socket_id());
	if (pool == NULL)
		rte_exit(EXIT_FAILURE, "no memory for %d buffers\n", BUFFERS);
	for (uint16_t port = 0; port < ports; port++)
		if (start_port(port, pool) < 0)
			rte_exit(EXIT_FAILURE, "port %u cannot be started\n", port);
	signal(SIGTERM, stop);
	rte_eal_mp_remote_launch(forward, pool, SKIP_MAIN);
	printf("l2fwd: forwarding between %u ports\n", ports);
	fflush(stdout);
	rte_eal_mp_wait_lcore();
	return 0;
}
