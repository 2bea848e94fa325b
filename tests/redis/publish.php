<?php
// php publish.php CLIENT PREFIX PORT…: broadcasts what each line of stdin says, [channels, event, payload], by Laravel's
// own broadcaster over a client of Redis: phpredis or predis; or over a Redis Cluster by phpredis, as Laravel 12
// and 13 do it there: one PUBLISH per channel.

use Illuminate\Broadcasting\Broadcasters\RedisBroadcaster;
use Illuminate\Container\Container;
use Illuminate\Redis\RedisManager;

error_reporting(E_ALL & ~E_DEPRECATED);
require_once 'Illuminate/autoload.php';
foreach (['Support/helpers.php', 'Collections/helpers.php'] as $helpers) {
    require_once "/usr/share/php/Illuminate/$helpers";
}
[, $client, $prefix] = $argv;
$ports = array_slice($argv, 3);
if ($client === 'cluster') {
    $redis = new RedisCluster(null, array_map(fn ($port) => "127.0.0.1:$port", $ports));
    $redis->setOption(Redis::OPT_PREFIX, $prefix);
    $broadcast = function ($channels, $event, $payload) use ($redis) {
        $socket = $payload['socket'] ?? null;
        foreach ($channels as $channel) {
            $redis->publish($channel, json_encode(['event' => $event, 'data' => $payload, 'socket' => $socket]));
        }
    };
} else {
    if ($client === 'predis') {
        require_once 'Predis/autoload.php';
    }
    $connection = ['host' => '127.0.0.1', 'port' => $ports[0], 'database' => 0];
    $manager = new RedisManager(new Container, $client, ['options' => ['prefix' => $prefix], 'default' => $connection]);
    $broadcaster = new RedisBroadcaster($manager, 'default', $prefix);
    $broadcast = fn ($channels, $event, $payload) => $broadcaster->broadcast($channels, $event, $payload);
}
while (($line = fgets(STDIN)) !== false) {
    $broadcast(...json_decode($line, true));
}
