"""Each line that a rule of security finds names the rule."""

import hashlib
import os
import pickle
import random
import secrets
import socket
import ssl
import subprocess as sp
import tarfile
import tempfile
from os import system
from xml.etree import ElementTree
import requests
import yaml
from Crypto.Cipher import AES, DES

DB_PASSWORD = "hunter2hunter2"  # want hard-coded-secret
API_KEY = os.environ["API_KEY"]
PASSWORD_FIELD = "password"
password = ""
token_url = "https://example.com/token"
CONFIG = {"secret_key": "sb82hbd9-1hs", "name": "service"}  # want hard-coded-secret
CONFIG["api_key"] = "k9d8s7f6g5h4"  # want hard-coded-secret
DEBUG = True  # want debug-mode


def run(user, cmd, path):
    eval(user)  # want code-injection
    eval("1 + 1")
    exec(f"x = {user}")  # want code-injection
    os.system("ls " + path)  # want shell-injection
    system(cmd)  # want shell-injection
    os.system("ls")
    sp.run(cmd, shell=True)  # want shell-injection
    sp.run("ls -l", shell=True)  # want shell-injection
    sp.run(["ls", path])
    sp.check_output("ls %s" % path)  # want command-injection
    os.execvp(cmd, [cmd])  # want command-injection
    __import__(user)  # want code-injection
    print(f"{eval(user)}")  # want code-injection


def data(blob, text):
    pickle.loads(blob)  # want unsafe-deserialization
    yaml.load(text)  # want unsafe-deserialization
    yaml.load(text, Loader=yaml.SafeLoader)
    yaml.load(text, yaml.CSafeLoader)
    yaml.safe_load(text)
    ElementTree.fromstring(text)  # want xml-entities
    tarfile.open(text).extractall()
    tar = tarfile.open(text)
    tar.extractall("out")  # want archive-path
    tar.extractall("out", filter="data")
    tempfile.mktemp()  # want insecure-temp-file


def query(cursor, name, ids):
    cursor.execute("SELECT * FROM users WHERE name = '" + name + "'")  # want sql-injection
    cursor.execute("SELECT * FROM users WHERE name = '%s'" % name)  # want sql-injection
    cursor.execute(f"DELETE FROM users WHERE name = '{name}'")  # want sql-injection
    cursor.execute("UPDATE users SET name = '{}'".format(name))  # want sql-injection
    cursor.execute("SELECT * FROM users WHERE name = ?", (name,))
    cursor.execute("SELECT 1 " "FROM users")
    sql = "INSERT INTO users VALUES ('" + name + "')"  # want sql-injection
    marks = "SELECT * FROM users WHERE id IN (?" + ", ?" * len(ids) + ")"
    cursor.execute(marks, ids)
    print("select one of " + name)
    return sql


def crypto(blob, host):
    hashlib.md5(blob)  # want weak-hash
    hashlib.sha1(blob, usedforsecurity=False)
    hashlib.new("SHA1", blob)  # want weak-hash
    hashlib.sha256(blob)
    DES.new(blob)  # want weak-cipher
    AES.new(blob, AES.MODE_ECB)  # want weak-cipher
    requests.get(host, timeout=5, verify=False)  # want tls-not-verified
    requests.get(host)  # want no-timeout
    context = ssl._create_unverified_context()  # want tls-not-verified
    context.check_hostname = False  # want tls-not-verified
    ssl.wrap_socket(blob, ssl_version=ssl.PROTOCOL_TLSv1)  # want old-tls
    socket.socket().bind(("0.0.0.0", 80))  # want bind-all
    os.chmod("f", 0o777)  # want open-permissions
    os.chmod("f", 0o640)


def new_token():
    return "".join(random.choice("abc") for _ in range(9))  # want weak-random


def dice():
    return random.randint(1, 6), secrets.token_hex()


def connect(user, password="swordfish99"):  # want hard-coded-secret
    app.run(host=user, debug=True)  # want debug-mode
    login(user, password="correct-horse-7")  # want hard-coded-secret
    login(user, password="<your password>")
