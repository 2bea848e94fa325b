<?php
// In place of pusher/pusher-php-server and ably/ably-php where Composer cannot fetch them: as much of them as
// Laravel's broadcasters call, signed and written as the protocols say.

namespace Pusher;

class ApiErrorException extends \Exception
{
}

class Pusher
{
    public function __construct(private string $key, private string $secret, private string $app, private array $options = [])
    {
    }

    public function trigger($channels, string $event, $data, array $params = []): object
    {
        $channels = (array) $channels;
        $body = ['name' => $event, 'data' => is_string($data) ? $data : json_encode($data)]
            + (count($channels) === 1 ? ['channel' => $channels[0]] : ['channels' => $channels]) + $params;

        return $this->post('/events', json_encode($body));
    }

    public function socket_auth(string $channel, string $socket, ?string $data = null): string
    {
        $signed = hash_hmac('sha256', "$socket:$channel".($data === null ? '' : ":$data"), $this->secret);

        return json_encode(['auth' => "$this->key:$signed"] + ($data === null ? [] : ['channel_data' => $data]));
    }

    public function presence_auth(string $channel, string $socket, string $user, $info = null): string
    {
        return $this->socket_auth($channel, $socket, json_encode(['user_id' => $user] + ($info ? ['user_info' => $info] : [])));
    }

    private function post(string $path, string $body): object
    {
        $path = "/apps/$this->app$path";
        $query = ['auth_key' => $this->key, 'auth_timestamp' => time(), 'auth_version' => '1.0', 'body_md5' => md5($body)];
        $query['auth_signature'] = hash_hmac('sha256', "POST\n$path\n".urldecode(http_build_query($query)), $this->secret);
        $client = new \GuzzleHttp\Client(['base_uri' => "{$this->options['scheme']}://{$this->options['host']}:{$this->options['port']}"]);
        $answer = $client->post($path, [
            'query' => $query, 'body' => $body, 'http_errors' => false, 'headers' => ['Content-Type' => 'application/json'],
        ]);
        if ($answer->getStatusCode() !== 200) {
            throw new ApiErrorException((string) $answer->getBody(), $answer->getStatusCode());
        }

        return json_decode((string) $answer->getBody(), false, 512, JSON_THROW_ON_ERROR);
    }
}

namespace Ably\Models;

class Message
{
    public $name;
    public $data;
    public $connectionKey;
}

namespace Ably;

class AblyRest
{
    public object $options;
    public object $channels;

    public function __construct(array $options)
    {
        $this->options = (object) $options;
        $this->channels = new Channels($this->options);
    }
}

class Channels
{
    public function __construct(private object $options)
    {
    }

    public function get(string $name): Channel
    {
        return new Channel($this->options, $name);
    }
}

class Channel
{
    public function __construct(private object $options, private string $name)
    {
    }

    public function publish(Models\Message $message): bool
    {
        $body = ['id' => bin2hex(random_bytes(9)).':0', 'data' => json_encode($message->data), 'encoding' => 'json', 'name' => $message->name];
        if ($message->connectionKey !== null) {
            $body['connectionKey'] = $message->connectionKey;
        }
        $client = new \GuzzleHttp\Client(['base_uri' => "https://{$this->options->restHost}:{$this->options->tlsPort}"]);
        $answer = $client->post('/channels/'.urlencode($this->name).'/messages', [
            'auth' => explode(':', $this->options->key, 2), 'body' => json_encode($body), 'http_errors' => false,
            'verify' => getenv('NODE_EXTRA_CA_CERTS'),
            'headers' => ['Content-Type' => 'application/json', 'Accept' => 'application/json', 'X-Ably-Version' => '2'],
        ]);
        if ($answer->getStatusCode() !== 201) {
            throw new \Exception((string) $answer->getBody(), $answer->getStatusCode());
        }

        return true;
    }
}
