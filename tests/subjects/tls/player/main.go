// Plays a script as the program `subject` does (src/script.rs), over TLS by Go's own library. In: certificate, key; the task in
// the first line of standard input, then signals. Steps that TLS knows nothing of are errors.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const limit = 60 * time.Second

type value = json.RawMessage

type task struct {
	Script []value
	Peer   string
}

var (
	given     task
	listeners = map[int]net.Listener{}
	sockets   = map[int]*tls.Conn{}
	pending   = map[int][]byte{}
	server    *tls.Config
	heard     sync.Map
)

func say(words ...any) { fmt.Println(words...) }

func check(err error) {
	if err != nil {
		say("error", strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
}

// Reads a tuple.
func tuple(from value, into ...any) {
	var parts []value
	check(json.Unmarshal(from, &parts))
	for at := range into {
		check(json.Unmarshal(parts[at], into[at]))
	}
}

// Name and value of a variant; without a value, only the name.
func variant(of value) (string, value) {
	var name string
	if json.Unmarshal(of, &name) == nil {
		return name, nil
	}
	var fields map[string]value
	check(json.Unmarshal(of, &fields))
	for name, field := range fields {
		return name, field
	}
	return "", nil
}

func data(made value, number int) []byte {
	kind, of := variant(made)
	switch kind {
	case "Text":
		var text string
		check(json.Unmarshal(of, &text))
		return []byte(strings.ReplaceAll(text, "{n}", strconv.Itoa(number)))
	case "Bytes":
		var numbers []uint16
		check(json.Unmarshal(of, &numbers))
		all := make([]byte, len(numbers))
		for at, number := range numbers {
			all[at] = byte(number)
		}
		return all
	case "Fill":
		var fill struct {
			Count int
			With  string
		}
		check(json.Unmarshal(of, &fill))
		return bytes.Repeat([]byte(fill.With), fill.Count/len(fill.With)+1)[:fill.Count]
	}
	var first, second value
	tuple(of, &first, &second)
	return append(data(first, number), data(second, number)...)
}

func read(slot int, until value, most int) {
	kind, of := variant(until)
	left, mark, held := 0, "", pending[slot]
	switch kind {
	case "Bytes":
		check(json.Unmarshal(of, &left))
	case "Mark":
		check(json.Unmarshal(of, &mark))
	}
	buffer := make([]byte, most)
	for {
		switch kind {
		case "Bytes":
			now := min(left, len(held))
			held, left = held[now:], left-now
		case "Mark":
			if _, after, found := bytes.Cut(held, []byte(mark)); found {
				pending[slot] = after
				return
			}
		default:
			held = nil
		}
		if kind == "Bytes" && left == 0 {
			pending[slot] = held
			return
		}
		// Exactly what is due, so that a body is not read together with the head that follows it.
		space := buffer
		if left > 0 {
			space = buffer[:min(left, most)]
		}
		count, err := sockets[slot].Read(space)
		held = append(held, space[:count]...)
		if err != nil && kind == "End" && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)) {
			return
		}
		check(err)
	}
}

func opened(slot int, connection *tls.Conn, err error) {
	check(err)
	check(connection.SetDeadline(time.Now().Add(limit)))
	check(connection.Handshake())
	sockets[slot], pending[slot] = connection, nil
}

func step(made value, number int) {
	kind, of := variant(made)
	slot, other := 0, 0
	switch kind {
	case "Listen":
		tuple(of, &slot)
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		check(err)
		listeners[slot] = listener
		say("listening", listener.Addr().(*net.TCPAddr).Port)
	case "Accept":
		tuple(of, &slot, &other)
		raw, err := listeners[slot].Accept()
		check(err)
		opened(other, tls.Server(raw, server), nil)
	case "Connect":
		tuple(of, &slot)
		connection, err := tls.Dial("tcp4", "127.0.0.1:"+given.Peer, &tls.Config{InsecureSkipVerify: true})
		opened(slot, connection, err)
	case "Send":
		var what value
		tuple(of, &slot, &what)
		_, err := sockets[slot].Write(data(what, number))
		check(err)
	case "Read":
		var until value
		var by string
		tuple(of, &slot, &until, &by, &other)
		read(slot, until, other)
	case "Shutdown":
		check(json.Unmarshal(of, &slot))
		check(sockets[slot].CloseWrite())
	case "Close":
		check(json.Unmarshal(of, &slot))
		sockets[slot].Close()
	case "Reset":
		check(json.Unmarshal(of, &slot))
		raw := sockets[slot].NetConn().(*net.TCPConn)
		check(raw.SetLinger(0))
		check(raw.Close())
	case "Signal", "Wait":
		var name string
		check(json.Unmarshal(of, &name))
		if kind == "Signal" {
			say("signal", name)
			return
		}
		for end := time.Now().Add(limit / 3); ; time.Sleep(time.Millisecond) {
			if _, there := heard.Load(name); there {
				return
			}
			if time.Now().After(end) {
				check(fmt.Errorf("signal %s did not come", name))
			}
		}
	case "Pause":
		check(json.Unmarshal(of, &other))
		time.Sleep(time.Duration(other) * time.Millisecond)
	case "Repeat":
		var script []value
		tuple(of, &other, &script)
		for round := 0; round < other; round++ {
			play(script, round)
		}
	case "Exit":
		say("done")
		os.Exit(0)
	default:
		check(fmt.Errorf("%s is not played over TLS", kind))
	}
}

func play(script []value, number int) {
	for _, made := range script {
		step(made, number)
	}
}

func main() {
	pair, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
	check(err)
	// A client that closes without having read the tickets would reset the connection.
	server = &tls.Config{Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: true}
	lines := bufio.NewReader(os.Stdin)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return
	}
	check(json.Unmarshal(line, &given))
	go func() {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				os.Exit(3)
			}
			heard.Store(strings.TrimSpace(line), true)
		}
	}()
	play(given.Script, 0)
	say("done")
	// As with any program, the kernel closes what is open.
	os.Exit(0)
}
