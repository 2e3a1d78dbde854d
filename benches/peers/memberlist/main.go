// Measures hashicorp/memberlist at its LAN defaults as benches/cluster measures hearsay: one broadcast to everybody, broadcasts
// per second that everybody gets, bytes, packets and CPU when idle. All members live in this process. Prints one JSON object.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

const keyBytes = 12

var packets, bytes atomic.Int64

// counting is memberlist's own transport and counts what it sends as datagrams.
type counting struct{ *memberlist.NetTransport }

func (t counting) WriteTo(b []byte, addr string) (time.Time, error) {
	packets.Add(1)
	bytes.Add(int64(len(b)))
	return t.NetTransport.WriteTo(b, addr)
}

func (t counting) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	packets.Add(1)
	bytes.Add(int64(len(b)))
	return t.NetTransport.WriteToAddress(b, addr)
}

type message []byte

func (m message) Invalidates(memberlist.Broadcast) bool { return false }
func (m message) Message() []byte                       { return m }
func (m message) Finished()                             {}

// member spreads on what is new to it, as serf does.
type member struct {
	list  *memberlist.Memberlist
	queue *memberlist.TransmitLimitedQueue
	mu    sync.Mutex
	seen  map[string]struct{}
}

var (
	mu   sync.Mutex
	told = map[string][]time.Time{}
)

func (m *member) take(b []byte) {
	key := string(b[:keyBytes])
	m.mu.Lock()
	_, known := m.seen[key]
	m.seen[key] = struct{}{}
	m.mu.Unlock()
	if known {
		return
	}
	m.queue.QueueBroadcast(message(append([]byte(nil), b...)))
	now := time.Now()
	mu.Lock()
	told[key] = append(told[key], now)
	mu.Unlock()
}

func (m *member) NodeMeta(int) []byte                    { return nil }
func (m *member) NotifyMsg(b []byte)                     { m.take(b) }
func (m *member) GetBroadcasts(over, limit int) [][]byte { return m.queue.GetBroadcasts(over, limit) }
func (m *member) LocalState(bool) []byte                 { return nil }
func (m *member) MergeRemoteState([]byte, bool)          {}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func start(i int) *member {
	m := &member{seen: map[string]struct{}{}}
	c := memberlist.DefaultLANConfig()
	c.Name = fmt.Sprintf("m%d", i)
	c.BindAddr, c.AdvertiseAddr = "127.0.0.1", "127.0.0.1"
	c.LogOutput, c.Logger = nil, log.New(io.Discard, "", 0)
	c.Delegate = m
	transport, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{"127.0.0.1"}, BindPort: 0, Logger: c.Logger,
	})
	fail(err)
	c.BindPort = transport.GetAutoBindPort()
	c.AdvertisePort = c.BindPort
	c.Transport = counting{transport}
	m.queue = &memberlist.TransmitLimitedQueue{RetransmitMult: c.RetransmitMult}
	m.queue.NumNodes = func() int {
		if m.list == nil {
			return 1
		}
		return m.list.NumMembers()
	}
	m.list, err = memberlist.Create(c)
	fail(err)
	return m
}

func quantile(values []float64, share float64) float64 {
	sort.Float64s(values)
	at := int(math.Ceil(float64(len(values))*share)) - 1
	return values[max(0, min(at, len(values)-1))]
}

func cpuMs() float64 {
	var u syscall.Rusage
	fail(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	ms := func(t syscall.Timeval) float64 { return float64(t.Sec)*1e3 + float64(t.Usec)/1e3 }
	return ms(u.Utime) + ms(u.Stime)
}

type load struct {
	BytesPerSecond     float64 `json:"bytesPerSecond"`
	DatagramsPerSecond float64 `json:"datagramsPerSecond"`
	CPUMsPerSecond     float64 `json:"cpuMsPerSecond"`
}

func during(members int, act func()) load {
	p, b, c, at := packets.Load(), bytes.Load(), cpuMs(), time.Now()
	act()
	per := time.Since(at).Seconds() * float64(members)
	return load{float64(bytes.Load()-b) / per, float64(packets.Load()-p) / per, (cpuMs() - c) / per}
}

func delivered(keys []string) (total int) {
	mu.Lock()
	defer mu.Unlock()
	for _, key := range keys {
		total += len(told[key])
	}
	return total
}

func main() {
	count := flag.Int("members", 8, "members")
	repetitions := flag.Int("repetitions", 20, "broadcasts")
	idle := flag.Duration("idle", 10*time.Second, "idle time measured")
	seconds := flag.Float64("seconds", 5, "length of each load")
	rates := flag.String("rates", "10,20,40,80", "broadcasts per second, rising")
	flag.Parse()

	n := *count
	members := make([]*member, n)
	began := time.Now()
	for i := range members {
		members[i] = start(i)
		if i > 0 {
			seed := members[0].list.LocalNode()
			_, err := members[i].list.Join([]string{fmt.Sprintf("127.0.0.1:%d", seed.Port)})
			fail(err)
		}
		time.Sleep(time.Second / time.Duration(n))
	}
	for whole := false; !whole && time.Since(began) < 2*time.Minute; time.Sleep(10 * time.Millisecond) {
		whole = true
		for _, m := range members {
			whole = whole && m.list.NumMembers() == n
		}
	}
	joined := time.Since(began)
	time.Sleep(3 * time.Second)
	quiet := during(n, func() { time.Sleep(*idle) })

	payload := make([]byte, 100)
	say := func(i int, key string) time.Time {
		b := append([]byte(nil), payload...)
		copy(b, key)
		at := time.Now()
		members[i].take(b)
		return at
	}
	var half, most, all []float64
	incomplete := 0
	for r := 0; r < *repetitions; r++ {
		key := fmt.Sprintf("b%0*d", keyBytes-1, r)
		at := say(rand.Intn(n), key)
		for time.Since(at) < 5*time.Second && delivered([]string{key}) < n {
			time.Sleep(2 * time.Millisecond)
		}
		var times []float64
		mu.Lock()
		for _, t := range told[key] {
			times = append(times, t.Sub(at).Seconds()*1e3)
		}
		mu.Unlock()
		sort.Float64s(times)
		if times = times[1:]; len(times) < n-1 {
			incomplete++
		} else {
			half, most, all = append(half, quantile(times, .5)), append(most, quantile(times, .99)), append(all, quantile(times, 1))
		}
		time.Sleep(500*time.Millisecond + time.Duration(rand.Intn(200))*time.Millisecond)
	}
	spread := map[string]any{"repetitions": *repetitions, "incomplete": incomplete}
	if len(all) > 0 {
		spread["t50Ms"], spread["t99Ms"], spread["t100Ms"] = quantile(half, .5), quantile(most, .5), quantile(all, .5)
		spread["t100MsMin"], spread["t100MsMax"] = quantile(all, 0), quantile(all, 1)
	}

	var ladder []map[string]any
	var whole, nearly float64
	for round, text := range strings.Split(*rates, ",") {
		rate, err := strconv.ParseFloat(text, 64)
		fail(err)
		total := int(rate * *seconds)
		keys := make([]string, total)
		cost := during(n, func() {
			from := time.Now()
			for i := range keys {
				keys[i] = fmt.Sprintf("l%02d%0*d", round, keyBytes-3, i)
				if due := time.Duration(float64(i) / rate * 1e9); time.Since(from) < due {
					time.Sleep(due - time.Since(from))
				}
				say(i%n, keys[i])
			}
		})
		time.Sleep(3 * time.Second)
		share := float64(delivered(keys)) / float64(total*n)
		if share == 1 {
			whole = rate
		}
		if share >= .99 {
			nearly = rate
		}
		ladder = append(ladder, map[string]any{"rate": rate, "share": share, "load": cost})
		if share < .99 {
			break
		}
	}
	fail(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"members": n, "joinMs": joined.Seconds() * 1e3, "idle": quiet, "broadcast": spread,
		"ladder": ladder, "sustainedWhole": whole, "sustained99": nearly,
	}))
}
