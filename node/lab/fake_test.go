package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"appliance/vagrant"
)

// TestMain lets the test binary be the machines (Applet) and, within them,
// the program that the lab installs: a service that says its host's name, and
// commands that stand for init and join.
func TestMain(m *testing.M) {
	if Applet() {
		return
	}
	if len(os.Args) > 1 {
		if command, ok := fakes[os.Args[1]]; ok {
			if err := command(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(m.Run())
}

var fakes = map[string]func(args []string) error{
	"run":   fakeRun,
	"probe": fakeProbe,
	"init": func(args []string) error {
		fmt.Println(`{"join":{"master":"APPL1-m","agent":"APPL1-a"}}`)
		return fakeMember("init", args)
	},
	"token": func(args []string) error {
		fmt.Printf("{\n  \"id\": \"7\",\n  \"token\": \"APPL1-%s\"\n}\n", args[2][:1]) // create --role ROLE
		return nil
	},
	"up": func(args []string) error { // a lab command that a test can kill
		var c vagrant.Cluster
		var o Options
		if err := errors.Join(json.Unmarshal([]byte(args[0]), &c), json.Unmarshal([]byte(args[1]), &o)); err != nil {
			return err
		}
		_, err := Up(context.Background(), c, o)
		return err
	},
	"join": func(args []string) error {
		address := args[len(args)-1]
		if err := fakeProbe([]string{strings.Split(address, ":")[0]}); err != nil {
			return err // as a real join needs the running master
		}
		return fakeMember("join", args)
	},
}

func fakeMember(verb string, args []string) error {
	return errors.Join(os.WriteFile(dataDir+"/config.json", nil, 0o600),
		os.WriteFile(dataDir+"/args", []byte(verb+" "+strings.Join(args, " ")), 0o600))
}

// fakeRun is the service: every run leaves a child behind, as containers are
// left by the real one, and a line in the data directory.
func fakeRun([]string) error {
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		return err
	}
	f, err := os.OpenFile(dataDir+"/runs", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fmt.Fprintln(f, os.Getpid())
	f.Close()
	fmt.Println("fake service runs")
	name, _ := os.Hostname()
	api, err := net.Listen("unix", runDir+"/api.sock")
	if err != nil {
		os.Remove(runDir + "/api.sock")
		if api, err = net.Listen("unix", runDir+"/api.sock"); err != nil {
			return err
		}
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) })
	go http.Serve(api, handler)
	return http.ListenAndServe(":7000", handler)
}

// fakeProbe prints the names of the hosts at the addresses.
func fakeProbe(addresses []string) error {
	client := http.Client{Timeout: 400 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, a := range addresses {
		resp, err := client.Get("http://" + a + ":7000/")
		if err != nil {
			return err
		}
		io.Copy(os.Stdout, resp.Body)
		resp.Body.Close()
		fmt.Println()
	}
	return nil
}
